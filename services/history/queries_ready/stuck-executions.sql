-- title: Which executions hang?
-- description: >-
--   Executions that have not ended and in which nothing has happened for a while, with the last thing that did.
-- parameters:
--   minutes: {default: 10, description: How long nothing has happened.}
--   limit: {default: 50, description: Most rows.}
SELECT execution_id, argMax(workflow_id, sequence) AS workflow_id, argMax(status, sequence) AS last_status, argMax(type, sequence) AS last_type,
    argMax(step_id, sequence) AS last_step, max(time) AS last_time, dateDiff('second', last_time, now64(6)) AS silent_s
FROM workflow_transitions
WHERE sequence > 0
GROUP BY execution_id
HAVING last_status IN ('pending', 'running', 'paused') AND last_time < now64(6) - toIntervalMinute({minutes:UInt32})
ORDER BY last_time, execution_id
LIMIT {limit:UInt32}
