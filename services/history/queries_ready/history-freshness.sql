-- title: How far does the history reach?
-- description: >-
--   By topic: rows, the newest row, and how long ago it was written to Kafka.
SELECT _topic AS topic, count() AS rows, uniqExact(_partition) AS partitions, max(_timestamp) AS newest,
    round(dateDiff('millisecond', newest, now64(3)) / 1000, 3) AS age_s
FROM
(
    SELECT _topic, _partition, _timestamp FROM workflow_transitions
    UNION ALL
    SELECT _topic, _partition, _timestamp FROM module_messages
    UNION ALL
    SELECT _topic, _partition, _timestamp FROM system_events
    UNION ALL
    SELECT _topic, _partition, _timestamp FROM composite_events
    UNION ALL
    SELECT _topic, _partition, _timestamp FROM deliveries
    UNION ALL
    SELECT _topic, _partition, _timestamp FROM workflow_commands
    UNION ALL
    SELECT _topic, _partition, _timestamp FROM dead_letters
    UNION ALL
    SELECT _topic, _partition, _timestamp FROM log_records
)
GROUP BY topic
ORDER BY topic
