-- title: How do the workflows do?
-- description: >-
--   By workflow: how many executions started, how they ended, the share that completed, and how long they took.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
SELECT workflow_id, count() AS executions, countIf(status = 'completed') AS completed, countIf(status IN ('failed', 'timed_out')) AS failed,
    countIf(status = 'cancelled') AS cancelled, countIf(ended_at IS NULL) AS open,
    round(completed / nullIf(completed + failed, 0), 4) AS success_rate,
    quantileExactIf(0.5)(duration_ms, duration_ms IS NOT NULL) AS p50_ms, quantileExactIf(0.95)(duration_ms, duration_ms IS NOT NULL) AS p95_ms
FROM executions
WHERE started_at >= now64(6) - toIntervalHour({hours:UInt32})
GROUP BY workflow_id
ORDER BY executions DESC, workflow_id
