-- title: What is running now, and since when?
-- description: >-
--   Executions that have not ended, the oldest first, with their last transition.
-- parameters:
--   workflow: {default: null, description: Only this workflow; all if not given.}
--   limit: {default: 50, description: Most rows.}
SELECT e.execution_id AS execution_id, e.workflow_id AS workflow_id, e.status AS status, e.started_at AS started_at,
    dateDiff('second', e.started_at, now64(6)) AS running_s, t.last_type AS last_type, t.last_step AS last_step, t.last_time AS last_time
FROM executions AS e
INNER JOIN
(
    SELECT execution_id, argMax(type, sequence) AS last_type, argMax(step_id, sequence) AS last_step, max(time) AS last_time
    FROM workflow_transitions WHERE sequence > 0 GROUP BY execution_id
) AS t ON t.execution_id = e.execution_id
WHERE e.status IN ('pending', 'running', 'paused') AND ({workflow:Nullable(String)} IS NULL OR e.workflow_id = {workflow:Nullable(String)})
ORDER BY started_at, execution_id
LIMIT {limit:UInt32}
