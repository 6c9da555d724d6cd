-- title: What was severe?
-- description: >-
--   System events and composites of severity error or critical, the newest first.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
--   limit: {default: 50, description: Most rows.}
SELECT time, severity, kind, type, source, subject, correlation_id, summary, id
FROM
(
    SELECT time, severity, 'event' AS kind, type, source, subject, correlation_id, data_text AS summary, id FROM system_events
    UNION ALL
    SELECT time, severity, 'composite' AS kind, type, source, subject, correlation_id, explanation AS summary, id
    FROM composite_events WHERE NOT retracted
)
WHERE severity IN ('error', 'critical') AND time >= now64(6) - toIntervalHour({hours:UInt32})
ORDER BY time DESC, id
LIMIT {limit:UInt32}
