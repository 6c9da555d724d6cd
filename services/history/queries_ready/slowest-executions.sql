-- title: Which executions took longest?
-- description: >-
--   Executions that ended, the slowest first.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
--   workflow: {default: null, description: Only this workflow; all if not given.}
--   limit: {default: 10, description: Most rows.}
SELECT execution_id, workflow_id, status, started_at, ended_at, duration_ms, failed_steps
FROM executions
WHERE ended_at IS NOT NULL AND started_at >= now64(6) - toIntervalHour({hours:UInt32})
    AND ({workflow:Nullable(String)} IS NULL OR workflow_id = {workflow:Nullable(String)})
ORDER BY duration_ms DESC, execution_id
LIMIT {limit:UInt32}
