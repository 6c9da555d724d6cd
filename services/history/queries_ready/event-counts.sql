-- title: What happens how often?
-- description: >-
--   System events by type and source, the most frequent first.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
--   limit: {default: 50, description: Most rows.}
SELECT type, source, count() AS events, uniq(subject) AS subjects, min(time) AS first_time, max(time) AS last_time
FROM system_events
WHERE time >= now64(6) - toIntervalHour({hours:UInt32})
GROUP BY type, source
ORDER BY events DESC, type, source
LIMIT {limit:UInt32}
