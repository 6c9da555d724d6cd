-- Any record by its id, by what caused it, by its story and by its subject: ids are random, so only a filter per granule helps. One wrong
-- granule in a thousand for ids, which a walk along causes asks for again and again; one in a hundred for the rest.
ALTER TABLE workflow_transitions
    ADD COLUMN IF NOT EXISTS error_code LowCardinality(String) DEFAULT JSONExtractString(data_text, 'error', 'code') AFTER status,
    ADD INDEX IF NOT EXISTS ids id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS causes ifNull(causation_id, '') TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS correlations correlation_id TYPE bloom_filter(0.01);

ALTER TABLE module_messages
    ADD INDEX IF NOT EXISTS ids id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS causes ifNull(causation_id, '') TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS executions ifNull(execution_id, '') TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS subjects subject TYPE bloom_filter(0.01);

ALTER TABLE system_events
    ADD INDEX IF NOT EXISTS ids id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS causes ifNull(causation_id, '') TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS subjects subject TYPE bloom_filter(0.01),
    ADD INDEX IF NOT EXISTS severities severity TYPE set(8);

ALTER TABLE composite_events
    ADD INDEX IF NOT EXISTS ids id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS causes ifNull(causation_id, '') TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS members event_ids TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS subjects subject TYPE bloom_filter(0.01);

ALTER TABLE deliveries
    ADD INDEX IF NOT EXISTS ids id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS causes ifNull(causation_id, '') TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS events event_id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS correlations correlation_id TYPE bloom_filter(0.01),
    ADD INDEX IF NOT EXISTS subjects subject TYPE bloom_filter(0.01);

ALTER TABLE workflow_commands
    ADD INDEX IF NOT EXISTS ids id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS causes ifNull(causation_id, '') TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS correlations correlation_id TYPE bloom_filter(0.01);

ALTER TABLE dead_letters
    ADD INDEX IF NOT EXISTS ids id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS subjects subject TYPE bloom_filter(0.01);

-- When each row came in, for the lag of the history. Rows that are there count as inserted when Kafka took them. It is MATERIALIZED, so that
-- `SELECT *` and inserts do not see it.
ALTER TABLE workflow_transitions ADD COLUMN IF NOT EXISTS _inserted_at DateTime64(3, 'UTC') MATERIALIZED _timestamp CODEC(ZSTD(1));
ALTER TABLE module_messages ADD COLUMN IF NOT EXISTS _inserted_at DateTime64(3, 'UTC') MATERIALIZED _timestamp CODEC(ZSTD(1));
ALTER TABLE system_events ADD COLUMN IF NOT EXISTS _inserted_at DateTime64(3, 'UTC') MATERIALIZED _timestamp CODEC(ZSTD(1));
ALTER TABLE composite_events ADD COLUMN IF NOT EXISTS _inserted_at DateTime64(3, 'UTC') MATERIALIZED _timestamp CODEC(ZSTD(1));
ALTER TABLE deliveries ADD COLUMN IF NOT EXISTS _inserted_at DateTime64(3, 'UTC') MATERIALIZED _timestamp CODEC(ZSTD(1));
ALTER TABLE workflow_commands ADD COLUMN IF NOT EXISTS _inserted_at DateTime64(3, 'UTC') MATERIALIZED _timestamp CODEC(ZSTD(1));
ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS _inserted_at DateTime64(3, 'UTC') MATERIALIZED _timestamp CODEC(ZSTD(1));
ALTER TABLE log_records ADD COLUMN IF NOT EXISTS _inserted_at DateTime64(3, 'UTC') MATERIALIZED _timestamp CODEC(ZSTD(1));
