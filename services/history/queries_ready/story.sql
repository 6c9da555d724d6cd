-- title: What belongs to one story?
-- description: >-
--   Every record with a correlation id, of all kinds, in order of time.
-- parameters:
--   correlation: {description: The correlation id.}
--   limit: {default: 1000, description: Most rows.}
SELECT time, kind, type, source, subject, id, causation_id, data_text AS data
FROM
(
    SELECT time, 'event' AS kind, type, source, subject, id, causation_id, data_text FROM system_events WHERE correlation_id = {correlation:String}
    UNION ALL
    SELECT time, 'composite' AS kind, type, source, subject, id, causation_id, data_text FROM composite_events WHERE correlation_id = {correlation:String}
    UNION ALL
    SELECT time, 'transition' AS kind, type, source, subject, id, causation_id, data_text FROM workflow_transitions WHERE correlation_id = {correlation:String}
    UNION ALL
    SELECT time, 'message' AS kind, type, source, subject, id, causation_id, data_text FROM module_messages WHERE correlation_id = {correlation:String}
    UNION ALL
    SELECT time, 'command' AS kind, type, source, subject, id, causation_id, data_text FROM workflow_commands WHERE correlation_id = {correlation:String}
    UNION ALL
    SELECT time, 'delivery' AS kind, type, source, subject, id, causation_id, data_text FROM deliveries WHERE correlation_id = {correlation:String}
)
ORDER BY time, id
LIMIT {limit:UInt32}
