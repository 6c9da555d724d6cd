-- `steps` as before, over the typed column of the error's code: payloads are not read any more.
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
    nullIf(maxIf(toString(rows.error_code), type IN ('step.retried', 'step.failed', 'step.timed_out')), '') AS error_code
FROM workflow_transitions AS rows
WHERE startsWith(type, 'step.') AND type != 'step.answered_late' AND step_id IS NOT NULL AND sequence > 0
GROUP BY execution_id, step_id, greatest(rows.attempt, 1);

-- What all records have, of all tables: to find one whose kind is not known, and to tell a story across them.
CREATE OR REPLACE VIEW records AS
SELECT 'WorkflowTransition' AS record, id, type, source, subject, time, tenant, correlation_id, causation_id, toNullable(execution_id) AS execution_id, step_id, data, data_text,
    _topic, _partition, _offset, _timestamp FROM workflow_transitions
UNION ALL
SELECT 'ModuleMessage' AS record, id, type, source, subject, time, tenant, correlation_id, causation_id, execution_id, step_id, data, data_text,
    _topic, _partition, _offset, _timestamp FROM module_messages
UNION ALL
SELECT 'SystemEvent' AS record, id, type, source, subject, time, tenant, correlation_id, causation_id, CAST(NULL, 'Nullable(String)') AS execution_id, CAST(NULL, 'Nullable(String)') AS step_id, data, data_text,
    _topic, _partition, _offset, _timestamp FROM system_events
UNION ALL
SELECT 'CompositeEvent' AS record, id, type, source, subject, time, tenant, correlation_id, causation_id, CAST(NULL, 'Nullable(String)') AS execution_id, CAST(NULL, 'Nullable(String)') AS step_id, data, data_text,
    _topic, _partition, _offset, _timestamp FROM composite_events
UNION ALL
SELECT 'Delivery' AS record, id, type, source, subject, time, tenant, correlation_id, causation_id, CAST(NULL, 'Nullable(String)') AS execution_id, CAST(NULL, 'Nullable(String)') AS step_id, data, data_text,
    _topic, _partition, _offset, _timestamp FROM deliveries
UNION ALL
SELECT 'WorkflowCommand' AS record, id, type, source, subject, time, tenant, correlation_id, causation_id, toNullable(execution_id) AS execution_id, CAST(NULL, 'Nullable(String)') AS step_id, data, data_text,
    _topic, _partition, _offset, _timestamp FROM workflow_commands;

-- Everything that led to a record (`distance` below 0), and everything that it led to (above 0), at most 200 steps each way. A walk over
-- names: `names` are those by which others refer to a record, `upward` those to which it refers; most are ids. Where a record refers to
-- no id that is a record's, its cause is found in the execution:
--  * A step's request is handed to a module in memory. What the module's log keeps of it has the request's id as its cause; answers and
--    events name that id; and the step that asks is found by execution, step and attempt.
--  * What a timer decides is caused by what began the attempt, or by the decision to try again, or by the start of the execution.
CREATE OR REPLACE VIEW causes AS
WITH RECURSIVE walk AS
(
    SELECT
        tag, id, cause, execution, step, attempt, what, sequence, members, type, source, subject, time, correlation_id, _topic, _partition, _offset,
        multiIf(
        tag = 'transition' AND what = 'step.started', [id, concat('step/', execution, '/', step, '/', toString(attempt))],
        tag = 'transition' AND what = 'step.retried', [id, concat('retried/', execution, '/', step, '/', toString(attempt))],
        tag = 'transition' AND what = 'execution.started', [id, concat('begun/', execution)],
        tag = 'message' AND what = 'request' AND sequence > 0, [id, cause],
        [id]) AS names,
        multiIf(
        tag = 'message' AND what = 'request' AND step != '', [concat('step/', execution, '/', step, '/', toString(attempt))],
        tag = 'message' AND what = 'request' AND sequence > 0, [''],
        NOT (tag = 'transition' AND cause = '' AND sequence > 1), arrayPushBack(members, cause),
        what = 'step.started' AND attempt > 1, [concat('retried/', execution, '/', step, '/', toString(attempt - 1))],
        what != 'step.started' AND step != '', [concat('step/', execution, '/', step, '/', toString(attempt))],
        [concat('begun/', execution)]) AS upward,
        arrayFilter(name -> name != '', arrayConcat(names, upward, [execution])) AS sought,
        toInt32(0) AS distance
    FROM
        (
            SELECT 'transition' AS tag, id, ifNull(causation_id, '') AS cause, execution_id AS execution, ifNull(step_id, '') AS step, attempt AS attempt, toString(type) AS what, ifNull(sequence, 0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM workflow_transitions WHERE id = {id:String}
            UNION ALL
            SELECT 'message' AS tag, id, ifNull(causation_id, '') AS cause, ifNull(execution_id, '') AS execution, ifNull(step_id, '') AS step, attempt AS attempt, toString(kind) AS what, ifNull(sequence, 0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM module_messages WHERE id = {id:String}
            UNION ALL
            SELECT 'event' AS tag, id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, toInt32(0) AS attempt, '' AS what, toInt64(0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM system_events WHERE id = {id:String}
            UNION ALL
            SELECT 'composite' AS tag, id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, toInt32(0) AS attempt, '' AS what, toInt64(0) AS sequence, event_ids AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM composite_events WHERE id = {id:String}
            UNION ALL
            SELECT 'delivery' AS tag, id, event_id AS cause, '' AS execution, '' AS step, toInt32(0) AS attempt, '' AS what, toInt64(0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM deliveries WHERE id = {id:String}
            UNION ALL
            SELECT 'command' AS tag, id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, toInt32(0) AS attempt, '' AS what, toInt64(0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM workflow_commands WHERE id = {id:String}
        )
    UNION ALL
    SELECT DISTINCT
        tag, id, cause, execution, step, attempt, what, sequence, members, type, source, subject, time, correlation_id, _topic, _partition, _offset,
        multiIf(
        tag = 'transition' AND what = 'step.started', [id, concat('step/', execution, '/', step, '/', toString(attempt))],
        tag = 'transition' AND what = 'step.retried', [id, concat('retried/', execution, '/', step, '/', toString(attempt))],
        tag = 'transition' AND what = 'execution.started', [id, concat('begun/', execution)],
        tag = 'message' AND what = 'request' AND sequence > 0, [id, cause],
        [id]) AS names,
        multiIf(
        tag = 'message' AND what = 'request' AND step != '', [concat('step/', execution, '/', step, '/', toString(attempt))],
        tag = 'message' AND what = 'request' AND sequence > 0, [''],
        NOT (tag = 'transition' AND cause = '' AND sequence > 1), arrayPushBack(members, cause),
        what = 'step.started' AND attempt > 1, [concat('retried/', execution, '/', step, '/', toString(attempt - 1))],
        what != 'step.started' AND step != '', [concat('step/', execution, '/', step, '/', toString(attempt))],
        [concat('begun/', execution)]) AS upward,
        arrayFilter(name -> name != '', arrayConcat(names, upward, [execution])) AS sought,
        f.distance + if(t.way = 'up', -1, 1)
    FROM
        (
            SELECT DISTINCT
                arrayJoin(arrayConcat(
                    if(distance <= 0, arrayMap(name -> ('up', name), upward), []),
                    if(distance >= 0, arrayMap(name -> ('down', name), names), []))) AS pair,
                pair.1 AS way, pair.2 AS key, distance
            FROM walk
            WHERE abs(distance) < 200
        ) AS f
        INNER JOIN
        (
            SELECT * FROM
            (
                SELECT 'up' AS way, id AS found_by, id AS key, 'transition' AS tag, id, ifNull(causation_id, '') AS cause, execution_id AS execution, ifNull(step_id, '') AS step, attempt AS attempt, toString(type) AS what, ifNull(sequence, 0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM workflow_transitions
                UNION ALL
                SELECT 'up' AS way, id AS found_by, id AS key, 'message' AS tag, id, ifNull(causation_id, '') AS cause, ifNull(execution_id, '') AS execution, ifNull(step_id, '') AS step, attempt AS attempt, toString(kind) AS what, ifNull(sequence, 0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM module_messages
                UNION ALL
                SELECT 'up' AS way, id AS found_by, id AS key, 'event' AS tag, id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, toInt32(0) AS attempt, '' AS what, toInt64(0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM system_events
                UNION ALL
                SELECT 'up' AS way, id AS found_by, id AS key, 'composite' AS tag, id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, toInt32(0) AS attempt, '' AS what, toInt64(0) AS sequence, event_ids AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM composite_events
                UNION ALL
                SELECT 'up' AS way, id AS found_by, id AS key, 'command' AS tag, id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, toInt32(0) AS attempt, '' AS what, toInt64(0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM workflow_commands
                UNION ALL
                SELECT 'up' AS way, ifNull(causation_id, '') AS found_by, ifNull(causation_id, '') AS key, 'message' AS tag, id, ifNull(causation_id, '') AS cause, ifNull(execution_id, '') AS execution, ifNull(step_id, '') AS step, attempt AS attempt, toString(kind) AS what, ifNull(sequence, 0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM module_messages WHERE kind = 'request' AND sequence > 0
                UNION ALL
                SELECT 'up' AS way, execution_id AS found_by, multiIf(type = 'step.started', concat('step/', execution, '/', step, '/', toString(attempt)), type = 'step.retried', concat('retried/', execution, '/', step, '/', toString(attempt)), concat('begun/', execution)) AS key, 'transition' AS tag, id, ifNull(causation_id, '') AS cause, execution_id AS execution, ifNull(step_id, '') AS step, attempt AS attempt, toString(type) AS what, ifNull(sequence, 0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM workflow_transitions WHERE type IN ('step.started', 'step.retried', 'execution.started')
                UNION ALL
                SELECT 'down' AS way, ifNull(causation_id, '') AS found_by, ifNull(causation_id, '') AS key, 'transition' AS tag, id, ifNull(causation_id, '') AS cause, execution_id AS execution, ifNull(step_id, '') AS step, attempt AS attempt, toString(type) AS what, ifNull(sequence, 0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM workflow_transitions
                UNION ALL
                SELECT 'down' AS way, ifNull(causation_id, '') AS found_by, ifNull(causation_id, '') AS key, 'message' AS tag, id, ifNull(causation_id, '') AS cause, ifNull(execution_id, '') AS execution, ifNull(step_id, '') AS step, attempt AS attempt, toString(kind) AS what, ifNull(sequence, 0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM module_messages WHERE NOT (kind = 'request' AND ifNull(sequence, 0) > 0)
                UNION ALL
                SELECT 'down' AS way, ifNull(causation_id, '') AS found_by, ifNull(causation_id, '') AS key, 'event' AS tag, id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, toInt32(0) AS attempt, '' AS what, toInt64(0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM system_events
                UNION ALL
                SELECT 'down' AS way, ifNull(causation_id, '') AS found_by, ifNull(causation_id, '') AS key, 'command' AS tag, id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, toInt32(0) AS attempt, '' AS what, toInt64(0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM workflow_commands
                UNION ALL
                SELECT 'down' AS way, event_id AS found_by, event_id AS key, 'delivery' AS tag, id, event_id AS cause, '' AS execution, '' AS step, toInt32(0) AS attempt, '' AS what, toInt64(0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM deliveries
                UNION ALL
                SELECT 'down' AS way, member AS found_by, member AS key, 'composite' AS tag, id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, toInt32(0) AS attempt, '' AS what, toInt64(0) AS sequence, event_ids AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM composite_events ARRAY JOIN event_ids AS member
                UNION ALL
                SELECT 'down' AS way, execution_id AS found_by, multiIf(type = 'step.started' AND attempt > 1, concat('retried/', execution, '/', step, '/', toString(attempt - 1)), type != 'step.started' AND step != '', concat('step/', execution, '/', step, '/', toString(attempt)), concat('begun/', execution)) AS key, 'transition' AS tag, id, ifNull(causation_id, '') AS cause, execution_id AS execution, ifNull(step_id, '') AS step, attempt AS attempt, toString(type) AS what, ifNull(sequence, 0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM workflow_transitions WHERE causation_id IS NULL AND sequence > 1
                UNION ALL
                SELECT 'down' AS way, ifNull(execution_id, '') AS found_by, concat('step/', execution, '/', step, '/', toString(attempt)) AS key, 'message' AS tag, id, ifNull(causation_id, '') AS cause, ifNull(execution_id, '') AS execution, ifNull(step_id, '') AS step, attempt AS attempt, toString(kind) AS what, ifNull(sequence, 0) AS sequence, CAST([], 'Array(String)') AS members, type, source, subject, time, correlation_id, _topic, _partition, _offset FROM module_messages WHERE kind = 'request' AND step_id IS NOT NULL
            )
            WHERE found_by IN (SELECT arrayJoin(sought) FROM walk)
        ) AS t ON t.key = f.key AND t.way = f.way
)
SELECT
    distance,
    transform(
        tag,
        ['transition', 'message', 'event', 'composite', 'delivery', 'command'],
        ['WorkflowTransition', 'ModuleMessage', 'SystemEvent', 'CompositeEvent', 'Delivery', 'WorkflowCommand']) AS record,
    id, type, source, subject, time, correlation_id, nullIf(cause, '') AS causation_id, nullIf(execution, '') AS execution_id,
    nullIf(step, '') AS step_id, _topic, _partition, _offset
FROM walk
ORDER BY abs(distance)
LIMIT 1 BY _topic, _partition, _offset;

-- One row per composite and record that it used, also where the record is not there (any more): then its columns are empty.
CREATE OR REPLACE VIEW composites_with_events AS
SELECT
    c.composite_id AS composite_id, c.rule_id AS rule_id, c.rule_version AS rule_version, c.correlation_type AS correlation_type,
    c.composite_type AS composite_type, c.composite_time AS composite_time, c.severity AS severity, c.confidence AS confidence,
    c.group_key AS group_key, c.window_start AS window_start, c.window_end AS window_end, c.revision AS revision, c.retracted AS retracted,
    c.explanation AS explanation, c.event_count AS event_count, c.position AS position, c.event_id AS event_id, e.record AS event_record,
    e.type AS event_type, e.source AS event_source, e.subject AS event_subject, nullIf(e.time, toDateTime64(0, 6, 'UTC')) AS event_time,
    e.correlation_id AS event_correlation_id, e.data_text AS event_data
FROM records AS e
RIGHT JOIN
(
    SELECT
        id AS composite_id, rule_id, rule_version, correlation_type, type AS composite_type, time AS composite_time, severity, confidence, group_key,
        window_start, window_end, revision, retracted, explanation, event_count, position, event_id
    FROM composite_events
    ARRAY JOIN event_ids AS event_id, arrayEnumerate(event_ids) AS position
) AS c ON e.id = c.event_id;

-- How long modules take, as workflows see it, from the start of an attempt to its answer; and calls from outside of workflows, from the
-- request to its response. By the minute of the start.
CREATE OR REPLACE VIEW module_latency AS
SELECT
    toStartOfMinute(begun) AS minute, module, operation, count() AS calls, countIf(NOT succeeded) AS errors,
    round(avg(latency_ms), 3) AS mean_ms, round(quantile(0.5)(latency_ms), 3) AS p50_ms, round(quantile(0.95)(latency_ms), 3) AS p95_ms,
    round(quantile(0.99)(latency_ms), 3) AS p99_ms, max(latency_ms) AS max_ms
FROM
(
    SELECT
        anyIf(ifNull(toString(data.module), ''), type = 'step.started') AS module,
        anyIf(ifNull(toString(data.operation), ''), type = 'step.started') AS operation,
        minIf(time, type = 'step.started') AS begun,
        countIf(type = 'step.completed') > 0 AS succeeded,
        (toUnixTimestamp64Micro(minIf(time, type != 'step.started')) - toUnixTimestamp64Micro(begun)) / 1000 AS latency_ms
    FROM workflow_transitions
    WHERE type IN ('step.started', 'step.completed', 'step.failed', 'step.timed_out', 'step.retried') AND step_id IS NOT NULL
    GROUP BY execution_id, step_id, attempt
    HAVING module != '' AND countIf(type != 'step.started') > 0
    UNION ALL
    SELECT
        anyIf(ifNull(target_module, ''), kind = 'request') AS module,
        any(operation) AS operation,
        minIf(if(sequence IS NULL, least(time, toDateTime64(_timestamp, 6, 'UTC')), time), kind = 'request') AS begun,
        countIf(kind = 'response' AND endsWith(type, '.answered')) > 0 AS succeeded,
        greatest(0, toUnixTimestamp64Micro(minIf(time, kind = 'response')) - toUnixTimestamp64Micro(begun)) / 1000 AS latency_ms
    FROM module_messages
    WHERE kind IN ('request', 'response') AND execution_id IS NULL
    GROUP BY if(kind = 'request' AND sequence IS NULL, id, ifNull(causation_id, ''))
    HAVING countIf(kind = 'request') > 0 AND countIf(kind = 'response') > 0
)
GROUP BY minute, module, operation;

-- What became of deliveries, by minute, route and destination. `success` is the share of those that ended (delivered or dead) that arrived.
CREATE OR REPLACE VIEW delivery_health AS
SELECT
    toStartOfMinute(time) AS minute, route_id, destination, count() AS attempts, countIf(status = 'delivered') AS delivered,
    countIf(status = 'retrying') AS retrying, countIf(status = 'failed') AS failed, countIf(status = 'dead') AS dead,
    if(delivered + dead = 0, NULL, delivered / (delivered + dead)) AS success,
    quantile(0.5)(latency_ms) AS p50_ms, quantile(0.99)(latency_ms) AS p99_ms, max(deliveries.attempt) AS attempts_max,
    nullIf(argMaxIf(ifNull(error, ''), time, status != 'delivered'), '') AS last_error
FROM deliveries
GROUP BY minute, route_id, destination;

-- How late records come: from their own time into Kafka, and from Kafka into these tables. By the minute of Kafka's timestamp.
CREATE OR REPLACE VIEW ingest_lag AS
SELECT
    toStartOfMinute(_timestamp) AS minute, _topic AS topic, _partition AS partition, count() AS records,
    quantile(0.99)(dateDiff('millisecond', happened, _timestamp)) AS to_kafka_p99_ms,
    quantile(0.5)(dateDiff('millisecond', _timestamp, _inserted_at)) AS to_history_p50_ms,
    quantile(0.99)(dateDiff('millisecond', _timestamp, _inserted_at)) AS to_history_p99_ms,
    max(dateDiff('millisecond', _timestamp, _inserted_at)) AS to_history_max_ms
FROM
(
    SELECT _topic, _partition, _timestamp, _inserted_at, toNullable(time) AS happened FROM workflow_transitions
    UNION ALL SELECT _topic, _partition, _timestamp, _inserted_at, toNullable(time) AS happened FROM module_messages
    UNION ALL SELECT _topic, _partition, _timestamp, _inserted_at, toNullable(time) AS happened FROM system_events
    UNION ALL SELECT _topic, _partition, _timestamp, _inserted_at, toNullable(time) AS happened FROM composite_events
    UNION ALL SELECT _topic, _partition, _timestamp, _inserted_at, toNullable(time) AS happened FROM deliveries
    UNION ALL SELECT _topic, _partition, _timestamp, _inserted_at, toNullable(time) AS happened FROM workflow_commands
    UNION ALL SELECT _topic, _partition, _timestamp, _inserted_at, CAST(NULL, 'Nullable(DateTime64(6, ''UTC''))') AS happened FROM dead_letters
    UNION ALL SELECT _topic, _partition, _timestamp, _inserted_at, CAST(NULL, 'Nullable(DateTime64(6, ''UTC''))') AS happened FROM log_records
)
GROUP BY minute, topic, partition;
