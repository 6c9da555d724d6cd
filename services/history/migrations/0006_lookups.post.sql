-- What was there before 0003 gets its indexes and columns, in the background. Until then such rows are found by reading them.
ALTER TABLE workflow_transitions
    MATERIALIZE COLUMN error_code,
    MATERIALIZE INDEX ids,
    MATERIALIZE INDEX causes,
    MATERIALIZE INDEX correlations;

ALTER TABLE module_messages
    MATERIALIZE INDEX ids,
    MATERIALIZE INDEX causes,
    MATERIALIZE INDEX executions,
    MATERIALIZE INDEX subjects;

ALTER TABLE system_events
    MATERIALIZE INDEX ids,
    MATERIALIZE INDEX causes,
    MATERIALIZE INDEX subjects,
    MATERIALIZE INDEX severities;

ALTER TABLE composite_events
    MATERIALIZE INDEX ids,
    MATERIALIZE INDEX causes,
    MATERIALIZE INDEX members,
    MATERIALIZE INDEX subjects;

ALTER TABLE deliveries
    MATERIALIZE INDEX ids,
    MATERIALIZE INDEX causes,
    MATERIALIZE INDEX events,
    MATERIALIZE INDEX correlations,
    MATERIALIZE INDEX subjects;

ALTER TABLE workflow_commands
    MATERIALIZE INDEX ids,
    MATERIALIZE INDEX causes,
    MATERIALIZE INDEX correlations;

ALTER TABLE dead_letters
    MATERIALIZE INDEX ids,
    MATERIALIZE INDEX subjects;

-- From here on a row says when it came in. The rows before must have their value first: a part without it would say the time of asking.
ALTER TABLE workflow_transitions MATERIALIZE COLUMN _inserted_at SETTINGS mutations_sync = 2;
ALTER TABLE module_messages MATERIALIZE COLUMN _inserted_at SETTINGS mutations_sync = 2;
ALTER TABLE system_events MATERIALIZE COLUMN _inserted_at SETTINGS mutations_sync = 2;
ALTER TABLE composite_events MATERIALIZE COLUMN _inserted_at SETTINGS mutations_sync = 2;
ALTER TABLE deliveries MATERIALIZE COLUMN _inserted_at SETTINGS mutations_sync = 2;
ALTER TABLE workflow_commands MATERIALIZE COLUMN _inserted_at SETTINGS mutations_sync = 2;
ALTER TABLE dead_letters MATERIALIZE COLUMN _inserted_at SETTINGS mutations_sync = 2;
ALTER TABLE log_records MATERIALIZE COLUMN _inserted_at SETTINGS mutations_sync = 2;
ALTER TABLE workflow_transitions MODIFY COLUMN _inserted_at DateTime64(3, 'UTC') MATERIALIZED now64(3, 'UTC') CODEC(ZSTD(1));
ALTER TABLE module_messages MODIFY COLUMN _inserted_at DateTime64(3, 'UTC') MATERIALIZED now64(3, 'UTC') CODEC(ZSTD(1));
ALTER TABLE system_events MODIFY COLUMN _inserted_at DateTime64(3, 'UTC') MATERIALIZED now64(3, 'UTC') CODEC(ZSTD(1));
ALTER TABLE composite_events MODIFY COLUMN _inserted_at DateTime64(3, 'UTC') MATERIALIZED now64(3, 'UTC') CODEC(ZSTD(1));
ALTER TABLE deliveries MODIFY COLUMN _inserted_at DateTime64(3, 'UTC') MATERIALIZED now64(3, 'UTC') CODEC(ZSTD(1));
ALTER TABLE workflow_commands MODIFY COLUMN _inserted_at DateTime64(3, 'UTC') MATERIALIZED now64(3, 'UTC') CODEC(ZSTD(1));
ALTER TABLE dead_letters MODIFY COLUMN _inserted_at DateTime64(3, 'UTC') MATERIALIZED now64(3, 'UTC') CODEC(ZSTD(1));
ALTER TABLE log_records MODIFY COLUMN _inserted_at DateTime64(3, 'UTC') MATERIALIZED now64(3, 'UTC') CODEC(ZSTD(1));
