-- title: What waits for a person?
-- description: >-
--   Approvals that were requested and have no answer, in executions that still run, the oldest first.
-- parameters:
--   limit: {default: 50, description: Most rows.}
SELECT execution_id, any(workflow_id) AS workflow_id, step_id, maxIf(time, type = 'approval.requested') AS requested_at,
    dateDiff('second', requested_at, now64(6)) AS waiting_s, argMaxIf(data_text, sequence, type = 'approval.requested') AS request
FROM workflow_transitions
WHERE type IN ('approval.requested', 'approval.answered', 'step.completed', 'step.failed', 'step.timed_out', 'step.cancelled', 'step.skipped')
    AND sequence > 0
    AND execution_id IN (SELECT execution_id FROM executions WHERE status IN ('pending', 'running', 'paused'))
GROUP BY execution_id, step_id
HAVING argMax(type, sequence) = 'approval.requested'
ORDER BY requested_at, execution_id
LIMIT {limit:UInt32}
