-- title: What did a record cause?
-- description: >-
--   The records that name a record as their cause, of all kinds, in order of time.
-- parameters:
--   id: {description: Id of the record.}
--   limit: {default: 1000, description: Most rows.}
SELECT time, kind, type, source, subject, id
FROM
(
    SELECT time, 'event' AS kind, type, source, subject, id FROM system_events WHERE causation_id = {id:String}
    UNION ALL
    SELECT time, 'composite' AS kind, type, source, subject, id FROM composite_events WHERE causation_id = {id:String}
    UNION ALL
    SELECT time, 'transition' AS kind, type, source, subject, id FROM workflow_transitions WHERE causation_id = {id:String}
    UNION ALL
    SELECT time, 'message' AS kind, type, source, subject, id FROM module_messages WHERE causation_id = {id:String}
    UNION ALL
    SELECT time, 'command' AS kind, type, source, subject, id FROM workflow_commands WHERE causation_id = {id:String}
    UNION ALL
    SELECT time, 'delivery' AS kind, type, source, subject, id FROM deliveries WHERE causation_id = {id:String}
)
ORDER BY time, id
LIMIT {limit:UInt32}
