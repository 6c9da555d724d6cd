-- title: How many executions ran, hour by hour?
-- description: >-
--   Executions by the hour of their start and how they stand, hours without any included.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
--   workflow: {default: null, description: Only this workflow; all if not given.}
SELECT toStartOfHour(started_at) AS hour, count() AS executions, countIf(status = 'completed') AS completed,
    countIf(status IN ('failed', 'timed_out')) AS failed, countIf(ended_at IS NULL) AS open
FROM executions
WHERE started_at >= toStartOfHour(now64(6)) - toIntervalHour({hours:UInt32})
    AND ({workflow:Nullable(String)} IS NULL OR workflow_id = {workflow:Nullable(String)})
GROUP BY hour
ORDER BY hour WITH FILL STEP toIntervalHour(1)
