-- title: Which commands were refused?
-- description: >-
--   Commands to executions that were refused, the newest first, with the reason.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
--   limit: {default: 50, description: Most rows.}
SELECT time, execution_id, data.command.:String AS command, data.code.:String AS code,
    data.message.:String AS reason
FROM workflow_transitions
WHERE type = 'command.refused' AND time >= now64(6) - toIntervalHour({hours:UInt32})
ORDER BY time DESC, execution_id
LIMIT {limit:UInt32}
