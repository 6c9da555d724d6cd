-- title: What happened in an execution?
-- description: >-
--   Every transition of one execution in order, with the time since the one before.
-- parameters:
--   execution: {description: Id of the execution.}
SELECT sequence, time, dateDiff('millisecond', lagInFrame(time, 1, time) OVER w, time) AS after_ms, type, step_id, attempt, status, data
FROM workflow_transitions
WHERE execution_id = {execution:String} AND sequence > 0
WINDOW w AS (ORDER BY sequence ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
ORDER BY sequence
