-- title: What failed lately, and why?
-- description: >-
--   Executions that failed, timed out or were cancelled, the newest first, with the error that ended them.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
--   workflow: {default: null, description: Only this workflow; all if not given.}
--   limit: {default: 50, description: Most rows.}
SELECT execution_id, workflow_id, status, time AS ended_at, data.duration_ms.:Int64 AS duration_ms,
    data.error.code.:String AS error_code, data.error.message.:String AS error
FROM workflow_transitions
WHERE type IN ('execution.failed', 'execution.timed_out', 'execution.cancelled') AND sequence > 0
    AND time >= now64(6) - toIntervalHour({hours:UInt32})
    AND ({workflow:Nullable(String)} IS NULL OR workflow_id = {workflow:Nullable(String)})
ORDER BY time DESC, execution_id
LIMIT {limit:UInt32}
