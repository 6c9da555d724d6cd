-- title: Which rules say much?
-- description: >-
--   By rule: composites, how many groups, how much was suppressed and taken back, and the mean confidence.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
SELECT rule_id, uniqExact(id) AS composites, uniqExact(group_key) AS groups, sum(suppressed_count) AS suppressed, countIf(retracted) AS retracted,
    round(avg(confidence), 3) AS mean_confidence, max(time) AS last_time
FROM composite_events
WHERE time >= now64(6) - toIntervalHour({hours:UInt32})
GROUP BY rule_id
ORDER BY composites DESC, rule_id
