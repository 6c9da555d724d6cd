-- One table per record family. `data` is the payload as JSON paths, `data_text` the same as it was written: a payload that is no JSON object
-- has an empty `data`, and nothing is lost. Month partitions follow Kafka's timestamp, never the record's own time, which anyone can set.

CREATE TABLE IF NOT EXISTS workflow_transitions
(
    id String CODEC(ZSTD(1)),
    type LowCardinality(String),
    source LowCardinality(String),
    subject String CODEC(ZSTD(1)),
    time DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    tenant LowCardinality(String),
    correlation_id String CODEC(ZSTD(1)),
    causation_id Nullable(String) CODEC(ZSTD(1)),
    data JSON(max_dynamic_paths=128) DEFAULT accurateCastOrDefault(data_text, 'JSON(max_dynamic_paths=128)'),
    data_text String CODEC(ZSTD(3)),
    execution_id String CODEC(ZSTD(1)),
    workflow_id LowCardinality(String),
    workflow_version LowCardinality(String),
    step_id Nullable(String) CODEC(ZSTD(1)),
    attempt Int32 CODEC(ZSTD(1)),
    status LowCardinality(String),
    aggregate_id Nullable(String) CODEC(ZSTD(1)),
    sequence Nullable(Int64) CODEC(ZSTD(1)),
    epoch Nullable(Int32) CODEC(ZSTD(1)),
    input Nullable(Tuple(topic String, partition Int32, offset Int64)) CODEC(ZSTD(1)),
    _topic LowCardinality(String),
    _partition Int32 CODEC(ZSTD(1)),
    _offset Int64 CODEC(DoubleDelta, ZSTD(1)),
    _timestamp DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    INDEX places (_topic, _partition, _offset) TYPE minmax,
    INDEX times time TYPE minmax
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(_timestamp)
ORDER BY (execution_id, step_id, attempt, sequence, _offset)
SETTINGS non_replicated_deduplication_window = 10000, allow_nullable_key = 1;

CREATE TABLE IF NOT EXISTS module_messages
(
    id String CODEC(ZSTD(1)),
    type LowCardinality(String),
    source LowCardinality(String),
    subject String CODEC(ZSTD(1)),
    time DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    tenant LowCardinality(String),
    correlation_id String CODEC(ZSTD(1)),
    causation_id Nullable(String) CODEC(ZSTD(1)),
    data JSON(max_dynamic_paths=128) DEFAULT accurateCastOrDefault(data_text, 'JSON(max_dynamic_paths=128)'),
    data_text String CODEC(ZSTD(3)),
    kind LowCardinality(String),
    source_module LowCardinality(String),
    target_module LowCardinality(Nullable(String)),
    operation LowCardinality(String),
    execution_id Nullable(String) CODEC(ZSTD(1)),
    step_id Nullable(String) CODEC(ZSTD(1)),
    attempt Int32 CODEC(ZSTD(1)),
    reply_to Nullable(String) CODEC(ZSTD(1)),
    deadline Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    status LowCardinality(Nullable(String)),
    error Nullable(Tuple(code String, message String, retryable Bool)) CODEC(ZSTD(1)),
    aggregate_id Nullable(String) CODEC(ZSTD(1)),
    sequence Nullable(Int64) CODEC(ZSTD(1)),
    epoch Nullable(Int32) CODEC(ZSTD(1)),
    input Nullable(Tuple(topic String, partition Int32, offset Int64)) CODEC(ZSTD(1)),
    _topic LowCardinality(String),
    _partition Int32 CODEC(ZSTD(1)),
    _offset Int64 CODEC(DoubleDelta, ZSTD(1)),
    _timestamp DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    INDEX places (_topic, _partition, _offset) TYPE minmax,
    INDEX times time TYPE minmax,
    INDEX correlations correlation_id TYPE bloom_filter(0.01)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(_timestamp)
ORDER BY (operation, time, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS system_events
(
    id String CODEC(ZSTD(1)),
    type LowCardinality(String),
    source LowCardinality(String),
    subject String CODEC(ZSTD(1)),
    time DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    tenant LowCardinality(String),
    correlation_id String CODEC(ZSTD(1)),
    causation_id Nullable(String) CODEC(ZSTD(1)),
    data JSON(max_dynamic_paths=128) DEFAULT accurateCastOrDefault(data_text, 'JSON(max_dynamic_paths=128)'),
    data_text String CODEC(ZSTD(3)),
    severity LowCardinality(String),
    aggregate_id Nullable(String) CODEC(ZSTD(1)),
    sequence Nullable(Int64) CODEC(ZSTD(1)),
    epoch Nullable(Int32) CODEC(ZSTD(1)),
    input Nullable(Tuple(topic String, partition Int32, offset Int64)) CODEC(ZSTD(1)),
    _topic LowCardinality(String),
    _partition Int32 CODEC(ZSTD(1)),
    _offset Int64 CODEC(DoubleDelta, ZSTD(1)),
    _timestamp DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    INDEX places (_topic, _partition, _offset) TYPE minmax,
    INDEX times time TYPE minmax,
    INDEX correlations correlation_id TYPE bloom_filter(0.01)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(_timestamp)
ORDER BY (type, time, _topic, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS composite_events
(
    id String CODEC(ZSTD(1)),
    type LowCardinality(String),
    source LowCardinality(String),
    subject String CODEC(ZSTD(1)),
    time DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    tenant LowCardinality(String),
    correlation_id String CODEC(ZSTD(1)),
    causation_id Nullable(String) CODEC(ZSTD(1)),
    data JSON(max_dynamic_paths=128) DEFAULT accurateCastOrDefault(data_text, 'JSON(max_dynamic_paths=128)'),
    data_text String CODEC(ZSTD(3)),
    rule_id LowCardinality(String),
    rule_version Int64 CODEC(ZSTD(1)),
    correlation_type LowCardinality(String),
    group_key Map(String, String) CODEC(ZSTD(1)),
    window_start DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    window_end DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    event_ids Array(String) CODEC(ZSTD(1)),
    event_count Int32 CODEC(ZSTD(1)),
    confidence Float64 CODEC(ZSTD(1)),
    severity LowCardinality(String),
    insights Array(Tuple(type String, summary String, data String)) CODEC(ZSTD(3)),
    explanation String CODEC(ZSTD(3)),
    revision Int32 CODEC(ZSTD(1)),
    retracted Bool,
    suppressed_count Int64 CODEC(ZSTD(1)),
    aggregate_id Nullable(String) CODEC(ZSTD(1)),
    sequence Nullable(Int64) CODEC(ZSTD(1)),
    epoch Nullable(Int32) CODEC(ZSTD(1)),
    input Nullable(Tuple(topic String, partition Int32, offset Int64)) CODEC(ZSTD(1)),
    _topic LowCardinality(String),
    _partition Int32 CODEC(ZSTD(1)),
    _offset Int64 CODEC(DoubleDelta, ZSTD(1)),
    _timestamp DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    INDEX places (_topic, _partition, _offset) TYPE minmax,
    INDEX times time TYPE minmax,
    INDEX correlations correlation_id TYPE bloom_filter(0.01)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(_timestamp)
ORDER BY (rule_id, time, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS deliveries
(
    id String CODEC(ZSTD(1)),
    type LowCardinality(String),
    source LowCardinality(String),
    subject String CODEC(ZSTD(1)),
    time DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    tenant LowCardinality(String),
    correlation_id String CODEC(ZSTD(1)),
    causation_id Nullable(String) CODEC(ZSTD(1)),
    data JSON(max_dynamic_paths=128) DEFAULT accurateCastOrDefault(data_text, 'JSON(max_dynamic_paths=128)'),
    data_text String CODEC(ZSTD(3)),
    event_id String CODEC(ZSTD(1)),
    route_id LowCardinality(String),
    destination LowCardinality(String),
    attempt Int32 CODEC(ZSTD(1)),
    status LowCardinality(String),
    error Nullable(String) CODEC(ZSTD(1)),
    latency_ms Float64 CODEC(ZSTD(1)),
    _topic LowCardinality(String),
    _partition Int32 CODEC(ZSTD(1)),
    _offset Int64 CODEC(DoubleDelta, ZSTD(1)),
    _timestamp DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    INDEX places (_topic, _partition, _offset) TYPE minmax,
    INDEX times time TYPE minmax
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(_timestamp)
ORDER BY (route_id, time, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS workflow_commands
(
    id String CODEC(ZSTD(1)),
    type LowCardinality(String),
    source LowCardinality(String),
    subject String CODEC(ZSTD(1)),
    time DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    tenant LowCardinality(String),
    correlation_id String CODEC(ZSTD(1)),
    causation_id Nullable(String) CODEC(ZSTD(1)),
    data JSON(max_dynamic_paths=128) DEFAULT accurateCastOrDefault(data_text, 'JSON(max_dynamic_paths=128)'),
    data_text String CODEC(ZSTD(3)),
    execution_id String CODEC(ZSTD(1)),
    command LowCardinality(String),
    _topic LowCardinality(String),
    _partition Int32 CODEC(ZSTD(1)),
    _offset Int64 CODEC(DoubleDelta, ZSTD(1)),
    _timestamp DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    INDEX places (_topic, _partition, _offset) TYPE minmax,
    INDEX times time TYPE minmax
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(_timestamp)
ORDER BY (execution_id, time, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS dead_letters
(
    id String CODEC(ZSTD(1)),
    type LowCardinality(String),
    source LowCardinality(String),
    subject String CODEC(ZSTD(1)),
    key Nullable(String) CODEC(ZSTD(1)),
    value Nullable(String) CODEC(ZSTD(3)),
    headers Array(Tuple(name String, value String)) CODEC(ZSTD(3)),
    error_topic LowCardinality(String),
    error_partition Nullable(Int32) CODEC(ZSTD(1)),
    error_offset Nullable(Int64) CODEC(ZSTD(1)),
    exception LowCardinality(String),
    message String CODEC(ZSTD(1)),
    stacktrace String CODEC(ZSTD(3)),
    stage LowCardinality(String),
    route LowCardinality(String),
    attempts Nullable(Int32) CODEC(ZSTD(1)),
    first_time String CODEC(ZSTD(1)),
    _topic LowCardinality(String),
    _partition Int32 CODEC(ZSTD(1)),
    _offset Int64 CODEC(DoubleDelta, ZSTD(1)),
    _timestamp DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    INDEX places (_topic, _partition, _offset) TYPE minmax
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(_timestamp)
ORDER BY (_topic, _timestamp, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS log_records
(
    kind LowCardinality(String),
    epoch Nullable(Int32) CODEC(ZSTD(1)),
    id String CODEC(ZSTD(1)),
    type LowCardinality(String),
    key Nullable(String) CODEC(ZSTD(1)),
    value Nullable(String) CODEC(ZSTD(3)),
    headers Array(Tuple(name String, value String)) CODEC(ZSTD(3)),
    error_code LowCardinality(String),
    error String CODEC(ZSTD(1)),
    _topic LowCardinality(String),
    _partition Int32 CODEC(ZSTD(1)),
    _offset Int64 CODEC(DoubleDelta, ZSTD(1)),
    _timestamp DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    INDEX places (_topic, _partition, _offset) TYPE minmax
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(_timestamp)
ORDER BY (_topic, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000;
