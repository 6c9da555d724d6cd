-- title: Who or what are the events about?
-- description: >-
--   Subjects of system events by how many there were, with the types that are most frequent.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
--   limit: {default: 50, description: Most rows.}
SELECT subject, count() AS events, topK(3)(type) AS types, countIf(severity IN ('error', 'critical')) AS severe, max(time) AS last_time
FROM system_events
WHERE time >= now64(6) - toIntervalHour({hours:UInt32}) AND subject != ''
GROUP BY subject
ORDER BY events DESC, subject
LIMIT {limit:UInt32}
