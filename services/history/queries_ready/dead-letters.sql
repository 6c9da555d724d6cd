-- title: What could not be handled?
-- description: >-
--   Dead letters by where they came from and why, with one example each.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
--   limit: {default: 50, description: Most rows.}
SELECT _topic AS topic, stage, route, exception AS code, count() AS letters, max(_timestamp) AS last_time, any(message) AS example, any(id) AS example_id
FROM dead_letters
WHERE _timestamp >= now64(3) - toIntervalHour({hours:UInt32})
GROUP BY topic, stage, route, code
ORDER BY letters DESC, topic, code
LIMIT {limit:UInt32}
