-- title: What could not be read?
-- description: >-
--   Offsets that hold bytes which are no record, by topic and reason.
-- parameters:
--   limit: {default: 50, description: Most rows.}
SELECT _topic AS topic, kind, error_code, count() AS records, min(_timestamp) AS first_time, max(_timestamp) AS last_time, any(error) AS example
FROM log_records
WHERE kind IN ('undecodable', 'unknown-schema', 'other')
GROUP BY topic, kind, error_code
ORDER BY records DESC, topic, kind
LIMIT {limit:UInt32}
