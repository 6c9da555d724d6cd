-- Every execution as it was at an instant, `at` as RFC 3339 text or ClickHouse's own: the columns of `executions`, what was decided last, and how
-- far its log had come. An execution that had not begun then is not there.
CREATE OR REPLACE VIEW executions_at AS
SELECT
    execution_id,
    argMax(workflow_id, sequence) AS workflow_id,
    argMax(workflow_version, sequence) AS workflow_version,
    argMax(status, sequence) AS status,
    min(time) AS started_at,
    if(status IN ('completed', 'failed', 'cancelled', 'timed_out'),
        maxOrNullIf(time, type IN ('execution.completed', 'execution.failed', 'execution.cancelled', 'execution.timed_out')), NULL) AS ended_at,
    intDiv(toUnixTimestamp64Micro(ended_at) - toUnixTimestamp64Micro(started_at), 1000) AS duration_ms,
    argMax(type, sequence) AS last_type,
    max(time) AS last_time,
    toUInt64(max(rows.sequence)) AS last_sequence
FROM workflow_transitions AS rows
WHERE sequence > 0 AND type != 'command.refused' AND time <= parseDateTime64BestEffort({at:String}, 6, 'UTC')
GROUP BY execution_id;

-- Every step as it was at an instant: what `mplp workflow state` folds from the log. Some events change other steps than their own: a retry
-- begins again what had ended (`reset`), and a fork begins with steps that another execution ended (`steps`).
CREATE OR REPLACE VIEW steps_at AS
SELECT
    execution_id,
    step_id,
    if(countIf(changed != '') = 0, 'pending', argMaxIf(changed, rank, changed != '')) AS status,
    maxIf(rows.attempt, type = 'step.started') AS attempts,
    minOrNullIf(time, type = 'step.started') AS started_at,
    if(status IN ('completed', 'failed', 'timed_out', 'skipped', 'cancelled'),
        maxOrNullIf(time, type IN ('step.completed', 'step.failed', 'step.timed_out', 'step.skipped', 'step.cancelled')), NULL) AS ended_at,
    intDiv(toUnixTimestamp64Micro(ended_at) - toUnixTimestamp64Micro(started_at), 1000) AS duration_ms,
    nullIf(argMaxIf(code, rank, code != '' OR type IN ('step.completed', 'step.skipped')), '') AS error_code
FROM
(
    SELECT
        execution_id, assumeNotNull(step_id) AS step_id, sequence * 2 AS rank, attempt, type, time,
        if(startsWith(type, 'compensation.') OR type = 'step.answered_late', '', toString(error_code)) AS code,
        transform(
            type,
            [
                'step.scheduled', 'step.started', 'step.retried', 'step.waiting', 'step.completed', 'step.failed', 'step.timed_out', 'step.skipped',
                'step.cancelled', 'approval.requested', 'approval.answered'
            ],
            ['scheduled', 'running', 'scheduled', 'waiting', 'completed', 'failed', 'timed_out', 'skipped', 'cancelled', 'waiting', 'running'],
            '') AS changed
    -- By the table's name: `step_id` alone is the column made above, which is never null.
    FROM workflow_transitions AS told
    WHERE sequence > 0 AND told.step_id IS NOT NULL AND time <= parseDateTime64BestEffort({at:String}, 6, 'UTC')
    UNION ALL
    SELECT
        execution_id, arrayJoin(JSONExtract(data_text, 'reset', 'Array(String)')) AS step_id, sequence * 2 + 1 AS rank, 0 AS attempt,
        '' AS type, time, '' AS code, 'pending' AS changed
    FROM workflow_transitions
    WHERE sequence > 0 AND time <= parseDateTime64BestEffort({at:String}, 6, 'UTC')
        AND type IN ('execution.retried', 'step.retried', 'approval.answered', 'compensation.started', 'compensation.completed', 'compensation.failed')
    UNION ALL
    SELECT
        execution_id, taken.1 AS step_id, sequence * 2 + 1 AS rank, 0 AS attempt,
        '' AS type, time, JSONExtractString(taken.2, 'error', 'code') AS code, JSONExtractString(taken.2, 'status') AS changed
    FROM workflow_transitions
    ARRAY JOIN JSONExtractKeysAndValuesRaw(data_text, 'steps') AS taken
    WHERE sequence > 0 AND time <= parseDateTime64BestEffort({at:String}, 6, 'UTC')
        AND type = 'execution.forked' AND NOT JSONHas(data_text, 'to')
) AS rows
GROUP BY execution_id, step_id;
