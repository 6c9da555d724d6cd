-- What a record refers to where it names no id that is a record's, and by what others refer to it beside its id, for a walk along causes:
--  * A step's request is handed to a module in memory. What the module's log keeps of it has the request's id as its cause: answers and
--    events name that id. The step that asks is found by execution, step and attempt.
--  * What a timer decides follows what began the attempt, or the decision to try again, or the start of the execution.
-- They are MATERIALIZED, so that `SELECT *` and inserts do not see them.
ALTER TABLE workflow_transitions
    ADD COLUMN IF NOT EXISTS _known_as String MATERIALIZED multiIf(
        type = 'step.started', concat('step/', ifNull(execution_id, ''), '/', ifNull(step_id, ''), '/', toString(attempt)),
        type = 'step.retried', concat('retried/', ifNull(execution_id, ''), '/', ifNull(step_id, ''), '/', toString(attempt)),
        type = 'execution.started', concat('begun/', execution_id), '') CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS _follows String MATERIALIZED multiIf(
        causation_id IS NOT NULL, assumeNotNull(causation_id),
        ifNull(sequence, 0) <= 1, '',
        type = 'step.started' AND attempt > 1, concat('retried/', ifNull(execution_id, ''), '/', ifNull(step_id, ''), '/', toString(attempt - 1)),
        type != 'step.started' AND step_id IS NOT NULL, concat('step/', ifNull(execution_id, ''), '/', ifNull(step_id, ''), '/', toString(attempt)),
        concat('begun/', execution_id)) CODEC(ZSTD(1));

ALTER TABLE module_messages
    ADD COLUMN IF NOT EXISTS _known_as String MATERIALIZED if(kind = 'request' AND ifNull(sequence, 0) > 0, ifNull(causation_id, ''), '') CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS _follows String MATERIALIZED multiIf(
        kind = 'request' AND step_id IS NOT NULL, concat('step/', ifNull(execution_id, ''), '/', ifNull(step_id, ''), '/', toString(attempt)),
        kind = 'request' AND ifNull(sequence, 0) > 0, '',
        ifNull(causation_id, '')) CODEC(ZSTD(1));

-- A second order of the rows for each thing that they are asked by: a row is found in as many steps as a tree is deep, however large the
-- table, where a filter per granule has to be asked of every granule. They lie in the parts of the table, so they are never behind it.
-- A lightweight DELETE makes them anew, too.
ALTER TABLE workflow_transitions MODIFY SETTING lightweight_mutation_projection_mode = 'rebuild';
ALTER TABLE module_messages MODIFY SETTING lightweight_mutation_projection_mode = 'rebuild';
ALTER TABLE system_events MODIFY SETTING lightweight_mutation_projection_mode = 'rebuild';
ALTER TABLE composite_events MODIFY SETTING lightweight_mutation_projection_mode = 'rebuild';
ALTER TABLE deliveries MODIFY SETTING lightweight_mutation_projection_mode = 'rebuild';
ALTER TABLE workflow_commands MODIFY SETTING lightweight_mutation_projection_mode = 'rebuild';

ALTER TABLE workflow_transitions
    ADD PROJECTION IF NOT EXISTS by_id INDEX id TYPE basic,
    ADD PROJECTION IF NOT EXISTS by_name INDEX _known_as TYPE basic,
    ADD PROJECTION IF NOT EXISTS by_what_it_follows INDEX _follows TYPE basic,
    ADD PROJECTION IF NOT EXISTS by_correlation INDEX correlation_id TYPE basic;

ALTER TABLE module_messages
    ADD PROJECTION IF NOT EXISTS by_id INDEX id TYPE basic,
    ADD PROJECTION IF NOT EXISTS by_name INDEX _known_as TYPE basic,
    ADD PROJECTION IF NOT EXISTS by_what_it_follows INDEX _follows TYPE basic,
    ADD PROJECTION IF NOT EXISTS by_correlation INDEX correlation_id TYPE basic,
    ADD PROJECTION IF NOT EXISTS by_execution INDEX execution_id TYPE basic;

ALTER TABLE system_events
    ADD PROJECTION IF NOT EXISTS by_id INDEX id TYPE basic,
    ADD PROJECTION IF NOT EXISTS by_cause INDEX causation_id TYPE basic,
    ADD PROJECTION IF NOT EXISTS by_correlation INDEX correlation_id TYPE basic,
    ADD PROJECTION IF NOT EXISTS by_subject INDEX subject TYPE basic;

ALTER TABLE composite_events
    ADD PROJECTION IF NOT EXISTS by_id INDEX id TYPE basic;

ALTER TABLE deliveries
    ADD PROJECTION IF NOT EXISTS by_id INDEX id TYPE basic,
    ADD PROJECTION IF NOT EXISTS by_event INDEX event_id TYPE basic;

ALTER TABLE workflow_commands
    ADD PROJECTION IF NOT EXISTS by_id INDEX id TYPE basic,
    ADD PROJECTION IF NOT EXISTS by_cause INDEX causation_id TYPE basic;

-- Everything that led to a record (`distance` below 0), and everything that it led to (above 0), at most 200 steps each way. Two walks over
-- names: those to which a record refers, and those by which others refer to it. `trail`: the
-- records between, so that a walk in a circle ends.
CREATE OR REPLACE VIEW causes AS
WITH RECURSIVE
back AS
(
    SELECT toInt32(0) AS distance, record, id, type, source, subject, time, correlation_id, cause, execution, step, _topic, _partition, _offset, names, [cityHash64(id)] AS trail FROM
    (
        SELECT 'WorkflowTransition' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, execution_id AS execution, ifNull(step_id, '') AS step, _topic, _partition, _offset, [_follows] AS names FROM workflow_transitions WHERE id = {id:String}
        UNION ALL
        SELECT 'ModuleMessage' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, ifNull(execution_id, '') AS execution, ifNull(step_id, '') AS step, _topic, _partition, _offset, [_follows] AS names FROM module_messages WHERE id = {id:String}
        UNION ALL
        SELECT 'SystemEvent' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, _topic, _partition, _offset, [ifNull(causation_id, '')] AS names FROM system_events WHERE id = {id:String}
        UNION ALL
        SELECT 'CompositeEvent' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, _topic, _partition, _offset, arrayPushBack(event_ids, ifNull(causation_id, '')) AS names FROM composite_events WHERE id = {id:String}
        UNION ALL
        SELECT 'Delivery' AS record, id, type, source, subject, time, correlation_id, event_id AS cause, '' AS execution, '' AS step, _topic, _partition, _offset, [event_id] AS names FROM deliveries WHERE id = {id:String}
        UNION ALL
        SELECT 'WorkflowCommand' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, execution_id AS execution, '' AS step, _topic, _partition, _offset, [ifNull(causation_id, '')] AS names FROM workflow_commands WHERE id = {id:String}
    )
    UNION ALL
    SELECT DISTINCT step.distance - 1, t.record, t.id, t.type, t.source, t.subject, t.time, t.correlation_id, t.cause, t.execution, t.step, t._topic, t._partition, t._offset, t.names, arrayPushBack(step.trail, cityHash64(t.id)) AS trail
    FROM
    (
        SELECT id AS key, 'WorkflowTransition' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, execution_id AS execution, ifNull(step_id, '') AS step, _topic, _partition, _offset, [_follows] AS names FROM workflow_transitions WHERE id IN (SELECT arrayJoin(names) AS name FROM back WHERE name != '' AND abs(distance) < 200)
        UNION ALL
        SELECT id AS key, 'ModuleMessage' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, ifNull(execution_id, '') AS execution, ifNull(step_id, '') AS step, _topic, _partition, _offset, [_follows] AS names FROM module_messages WHERE id IN (SELECT arrayJoin(names) AS name FROM back WHERE name != '' AND abs(distance) < 200)
        UNION ALL
        SELECT id AS key, 'SystemEvent' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, _topic, _partition, _offset, [ifNull(causation_id, '')] AS names FROM system_events WHERE id IN (SELECT arrayJoin(names) AS name FROM back WHERE name != '' AND abs(distance) < 200)
        UNION ALL
        SELECT id AS key, 'CompositeEvent' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, _topic, _partition, _offset, arrayPushBack(event_ids, ifNull(causation_id, '')) AS names FROM composite_events WHERE id IN (SELECT arrayJoin(names) AS name FROM back WHERE name != '' AND abs(distance) < 200)
        UNION ALL
        SELECT id AS key, 'WorkflowCommand' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, execution_id AS execution, '' AS step, _topic, _partition, _offset, [ifNull(causation_id, '')] AS names FROM workflow_commands WHERE id IN (SELECT arrayJoin(names) AS name FROM back WHERE name != '' AND abs(distance) < 200)
        UNION ALL
        SELECT _known_as AS key, 'WorkflowTransition' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, execution_id AS execution, ifNull(step_id, '') AS step, _topic, _partition, _offset, [_follows] AS names FROM workflow_transitions WHERE _known_as IN (SELECT arrayJoin(names) AS name FROM back WHERE name != '' AND abs(distance) < 200)
        UNION ALL
        SELECT _known_as AS key, 'ModuleMessage' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, ifNull(execution_id, '') AS execution, ifNull(step_id, '') AS step, _topic, _partition, _offset, [_follows] AS names FROM module_messages WHERE _known_as IN (SELECT arrayJoin(names) AS name FROM back WHERE name != '' AND abs(distance) < 200)
    ) AS t
    INNER JOIN (SELECT arrayJoin(names) AS name, max(distance) AS distance, any(trail) AS trail FROM back GROUP BY name) AS step ON step.name = t.key
    WHERE NOT has(step.trail, cityHash64(t.id))
),
forth AS
(
    SELECT toInt32(0) AS distance, record, id, type, source, subject, time, correlation_id, cause, execution, step, _topic, _partition, _offset, names, [cityHash64(id)] AS trail FROM
    (
        SELECT 'WorkflowTransition' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, execution_id AS execution, ifNull(step_id, '') AS step, _topic, _partition, _offset, [id, _known_as] AS names FROM workflow_transitions WHERE id = {id:String}
        UNION ALL
        SELECT 'ModuleMessage' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, ifNull(execution_id, '') AS execution, ifNull(step_id, '') AS step, _topic, _partition, _offset, [id, _known_as] AS names FROM module_messages WHERE id = {id:String}
        UNION ALL
        SELECT 'SystemEvent' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, _topic, _partition, _offset, [id] AS names FROM system_events WHERE id = {id:String}
        UNION ALL
        SELECT 'CompositeEvent' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, _topic, _partition, _offset, [id] AS names FROM composite_events WHERE id = {id:String}
        UNION ALL
        SELECT 'Delivery' AS record, id, type, source, subject, time, correlation_id, event_id AS cause, '' AS execution, '' AS step, _topic, _partition, _offset, [id] AS names FROM deliveries WHERE id = {id:String}
        UNION ALL
        SELECT 'WorkflowCommand' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, execution_id AS execution, '' AS step, _topic, _partition, _offset, [id] AS names FROM workflow_commands WHERE id = {id:String}
    )
    UNION ALL
    SELECT DISTINCT step.distance + 1, t.record, t.id, t.type, t.source, t.subject, t.time, t.correlation_id, t.cause, t.execution, t.step, t._topic, t._partition, t._offset, t.names, arrayPushBack(step.trail, cityHash64(t.id)) AS trail
    FROM
    (
        SELECT _follows AS key, 'WorkflowTransition' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, execution_id AS execution, ifNull(step_id, '') AS step, _topic, _partition, _offset, [id, _known_as] AS names FROM workflow_transitions WHERE _follows IN (SELECT arrayJoin(names) AS name FROM forth WHERE name != '' AND abs(distance) < 200)
        UNION ALL
        SELECT _follows AS key, 'ModuleMessage' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, ifNull(execution_id, '') AS execution, ifNull(step_id, '') AS step, _topic, _partition, _offset, [id, _known_as] AS names FROM module_messages WHERE _follows IN (SELECT arrayJoin(names) AS name FROM forth WHERE name != '' AND abs(distance) < 200)
        UNION ALL
        SELECT ifNull(causation_id, '') AS key, 'SystemEvent' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, _topic, _partition, _offset, [id] AS names FROM system_events WHERE causation_id IN (SELECT arrayJoin(names) AS name FROM forth WHERE name != '' AND abs(distance) < 200)
        UNION ALL
        SELECT ifNull(causation_id, '') AS key, 'WorkflowCommand' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, execution_id AS execution, '' AS step, _topic, _partition, _offset, [id] AS names FROM workflow_commands WHERE causation_id IN (SELECT arrayJoin(names) AS name FROM forth WHERE name != '' AND abs(distance) < 200)
        UNION ALL
        SELECT event_id AS key, 'Delivery' AS record, id, type, source, subject, time, correlation_id, event_id AS cause, '' AS execution, '' AS step, _topic, _partition, _offset, [id] AS names FROM deliveries WHERE event_id IN (SELECT arrayJoin(names) AS name FROM forth WHERE name != '' AND abs(distance) < 200)
        UNION ALL
        SELECT member AS key, 'CompositeEvent' AS record, id, type, source, subject, time, correlation_id, ifNull(causation_id, '') AS cause, '' AS execution, '' AS step, _topic, _partition, _offset, [id] AS names FROM composite_events ARRAY JOIN event_ids AS member WHERE member IN (SELECT arrayJoin(names) AS name FROM forth WHERE name != '' AND abs(distance) < 200)
    ) AS t
    INNER JOIN (SELECT arrayJoin(names) AS name, min(distance) AS distance, any(trail) AS trail FROM forth GROUP BY name) AS step ON step.name = t.key
    WHERE NOT has(step.trail, cityHash64(t.id))
)
SELECT
    distance, record, id, type, source, subject, time, correlation_id, nullIf(cause, '') AS causation_id, nullIf(execution, '') AS execution_id,
    nullIf(step, '') AS step_id, _topic, _partition, _offset
FROM (SELECT * FROM back UNION ALL SELECT * FROM forth)
ORDER BY abs(distance)
LIMIT 1 BY _topic, _partition, _offset;
