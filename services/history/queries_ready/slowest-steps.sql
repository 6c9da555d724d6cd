-- title: Which steps take longest?
-- description: >-
--   Attempts at steps that ended, by workflow and step, the highest 95th percentile first.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
--   limit: {default: 10, description: Most rows.}
SELECT workflow AS workflow_id, step AS step_id, count() AS attempts, round(avg(duration_ms), 1) AS mean_ms,
    quantileExact(0.5)(duration_ms) AS p50_ms, quantileExact(0.95)(duration_ms) AS p95_ms, max(duration_ms) AS max_ms
FROM
(
    -- As `steps` has them, in half of the time: a number of 64 bits tells attempts apart instead of their names (of a million, two are
    -- taken for one once in 40 million times), and each row says the workflow. What began before the time that is asked for has no
    -- beginning here, and is left out.
    SELECT
        any(workflow_id) AS workflow,
        any(assumeNotNull(step_id)) AS step,
        minIf(time, type = 'step.started') AS began,
        minIf(time, type != 'step.started') AS ended,
        dateDiff('millisecond', began, ended) AS duration_ms
    FROM workflow_transitions
    WHERE type IN ('step.started', 'step.retried', 'step.completed', 'step.failed', 'step.timed_out', 'step.skipped', 'step.cancelled')
        AND step_id IS NOT NULL AND sequence > 0 AND time >= now64(6) - toIntervalHour({hours:UInt32})
    GROUP BY cityHash64(execution_id, step_id, greatest(attempt, 1))
    HAVING began != toDateTime64(0, 6, 'UTC') AND ended != toDateTime64(0, 6, 'UTC')
)
GROUP BY workflow_id, step_id
ORDER BY p95_ms DESC, workflow_id, step_id
LIMIT {limit:UInt32}
