-- Executions: one row each, also while it runs (`ended_at` and `duration_ms` are then null). A refused command is no part of an
-- execution's life, and one refused before there was an execution (sequence 0) makes none. `failed_steps` counts the steps whose
-- last state is failed or timed out: a step that failed and was repaired later is not counted.
CREATE OR REPLACE VIEW executions AS
SELECT
    execution_id,
    argMax(last_workflow_id, last_sequence) AS workflow_id,
    argMax(last_status, last_sequence) AS status,
    min(begun) AS started_at,
    if(status IN ('completed', 'failed', 'cancelled', 'timed_out'), max(ended), NULL) AS ended_at,
    dateDiff('millisecond', started_at, ended_at) AS duration_ms,
    countIf(step IN ('step.failed', 'step.timed_out')) AS failed_steps
FROM
(
    SELECT
        execution_id,
        step_id,
        max(sequence) AS last_sequence,
        argMax(workflow_id, sequence) AS last_workflow_id,
        argMax(status, sequence) AS last_status,
        min(time) AS begun,
        maxOrNullIf(time, type IN ('execution.completed', 'execution.failed', 'execution.cancelled', 'execution.timed_out')) AS ended,
        argMaxIf(type, sequence, startsWith(type, 'step.') AND type != 'step.answered_late') AS step
    FROM workflow_transitions
    WHERE sequence > 0 AND type != 'command.refused'
    GROUP BY execution_id, step_id
)
GROUP BY execution_id;

-- Steps: one row per attempt. What happens to a step before its first attempt belongs to that attempt; a step that was never
-- started has attempt 0. An attempt that was tried again ended when that was decided.
CREATE OR REPLACE VIEW steps AS
SELECT
    execution_id,
    assumeNotNull(step_id) AS step_id,
    max(rows.attempt) AS attempt,
    multiIf(
        countIf(type = 'step.retried') > 0, if(error_code = 'timeout', 'timed_out', 'failed'),
        transform(
            argMax(type, sequence),
            ['step.scheduled', 'step.started', 'step.waiting', 'step.completed', 'step.failed', 'step.timed_out', 'step.skipped', 'step.cancelled'],
            ['scheduled', 'running', 'waiting', 'completed', 'failed', 'timed_out', 'skipped', 'cancelled'],
            'running')) AS status,
    minOrNullIf(time, type = 'step.started') AS started_at,
    minOrNullIf(time, type IN ('step.retried', 'step.completed', 'step.failed', 'step.timed_out', 'step.skipped', 'step.cancelled')) AS ended_at,
    dateDiff('millisecond', started_at, ended_at) AS duration_ms,
    nullIf(maxIf(JSONExtractString(data_text, 'error', 'code'), type IN ('step.retried', 'step.failed', 'step.timed_out')), '') AS error_code
FROM workflow_transitions AS rows
WHERE startsWith(type, 'step.') AND type != 'step.answered_late' AND step_id IS NOT NULL AND sequence > 0
GROUP BY execution_id, step_id, greatest(rows.attempt, 1);

-- Records per minute of their own time.
CREATE OR REPLACE VIEW event_rates AS
SELECT toStartOfMinute(time) AS minute, _topic AS topic, type, count() AS events FROM system_events GROUP BY minute, topic, type
UNION ALL
SELECT toStartOfMinute(time) AS minute, _topic AS topic, type, count() AS events FROM composite_events GROUP BY minute, topic, type
UNION ALL
SELECT toStartOfMinute(time) AS minute, _topic AS topic, type, count() AS events FROM workflow_transitions GROUP BY minute, topic, type
UNION ALL
SELECT toStartOfMinute(time) AS minute, _topic AS topic, type, count() AS events FROM workflow_commands GROUP BY minute, topic, type
UNION ALL
SELECT toStartOfMinute(time) AS minute, _topic AS topic, type, count() AS events FROM module_messages GROUP BY minute, topic, type
UNION ALL
SELECT toStartOfMinute(time) AS minute, _topic AS topic, type, count() AS events FROM deliveries GROUP BY minute, topic, type;
