"""Every cap of the product, in one place, with unit and reason; their relations are asserted at the end."""

from __future__ import annotations

#: Payload of one record (its `data`), bytes of JSON. Beyond it: `payload.too-large`.
PAYLOAD_BYTES_MAX = 1024 * 1024
#: Depth of nesting of a JSON payload: deeper documents exhaust parsers further down the line.
PAYLOAD_DEPTH_MAX = 100
#: State of one execution, bytes of JSON.
EXECUTION_STATE_BYTES_MAX = 8 * 1024 * 1024
#: `max.message.bytes` of log topics: one input's events are one batch, and a batch is one message to the broker.
LOG_MESSAGE_BYTES_MAX = 16 * 1024 * 1024
#: `max.message.bytes` of all other topics: one payload, its envelope and headers.
TOPIC_MESSAGE_BYTES_MAX = 2 * 1024 * 1024
#: `max.message.bytes` of topics of dead letters, and of what is put back: a record of any topic but a log, and what went wrong with it.
LETTER_MESSAGE_BYTES_MAX = 2 * TOPIC_MESSAGE_BYTES_MAX
#: Signals that an execution keeps until a step takes them.
SIGNALS_KEPT_MAX = 1000
#: Details of a heartbeat, bytes of JSON: they lie in the execution's state while the step runs.
HEARTBEAT_BYTES_MAX = 16 * 1024
#: How long an operation with heartbeats may be silent at most, milliseconds.
HEARTBEAT_MS_MAX = 24 * 3600 * 1000
#: Workflows around a child workflow: a workflow that starts itself ends here.
CHILD_DEPTH_MAX = 16
#: Step events decided from one input; then a continuation.
STEP_EVENTS_PER_INPUT_MAX = 500
#: Of a record's payload, kept free for what is told beside the largest value that it may carry.
ENVELOPE_BYTES = 16 * 1024
#: Characters of the message of an error that is kept; what is behind them is cut off.
ERROR_CHARACTERS_MAX = 16 * 1024
#: Characters of an id (execution, rule, route, step).
ID_CHARACTERS_MAX = 200
#: Characters of `type`, `source` and `subject`.
NAME_CHARACTERS_MAX = 1024
#: Characters of a CEL expression.
EXPRESSION_CHARACTERS_MAX = 4096
#: Steps of one evaluation of a CEL expression in the worst case, at half a microsecond: an expression over too much has no value.
EXPRESSION_STEPS_MAX = 1_000_000
#: Parts of the regular expressions of a CEL expression, counted repetitions written out: each may cost a step per character.
PATTERN_PARTS_MAX = 2000
#: Records of one chunk: a whole fetch handed to Faust as one event.
CHUNK_RECORDS_MAX = 1000
#: Full chunks whose records may be handed out and not yet acknowledged; also chunks that may wait for the owner of matches.
CHUNK_BACKLOG_MAX = 4
#: Bytes of records that may be handed out and not yet acknowledged, before more are fetched.
CHUNK_BACKLOG_BYTES_MAX = 64 * 1024 * 1024
#: How far ahead of its Kafka timestamp a record's `time` may be, milliseconds; beyond it the record moves no clock.
AHEAD_MS_MAX = 5 * 60 * 1000
#: Triggers and actions of rules of which each brought about what led to the next: beyond it nothing more is started, it is a loop.
TRIGGER_DEPTH_MAX = 16
#: Actions of a rule.
RULE_ACTIONS_MAX = 20
#: Longest `timespan` of a rule, milliseconds.
TIMESPAN_MS_MAX = 30 * 24 * 3600 * 1000
#: Groups that a rule keeps before the least recently used is evicted.
RULE_GROUPS_MAX = 100_000
#: Records that a rule keeps per group.
RULE_RECORDS_PER_GROUP_MAX = 10_000
#: Payload that travels in a `Match`, bytes; beyond it only the fields that the rule reads.
MATCH_PAYLOAD_BYTES_MAX = 4096
#: Characters of the text of a group (`group-by`): it is the key of matches and composites.
GROUP_KEY_CHARACTERS_MAX = 8192
#: Longest time between two `Position` records of an owner whose position moved without an event, milliseconds.
POSITION_INTERVAL_MS_MAX = 10_000
#: How long after a request's deadline a module answers repeats of it from the log, milliseconds.
ANSWERS_KEPT_MS = 3600 * 1000
#: How long an aggregate of a module that has ended is listed and kept in memory, milliseconds.
ENDED_LISTED_MS = 24 * 3600 * 1000
#: How long a list waits for the answers of other partitions, milliseconds; longer if the own one took long: so many times as long.
GATHER_MS = 2000
GATHER_TIMES = 3
#: How long at most, milliseconds, and which part of the time that its caller gives: the answer has to get there.
GATHER_MS_MAX = 30_000
GATHER_SHARE = 0.9
#: Log records after which an owner writes a checkpoint. A takeover replays what lies behind it, at about 0.1 ms each, of all partitions
#: that it takes over; more often means that an aggregate that changes all the time is written more often.
CHECKPOINT_RECORDS = 1_000
#: How many times as many records may lie behind the last checkpoint before an owner decides nothing more until it is written: so what a
#: takeover replays is bounded, however much there is to do.
CHECKPOINTS_BEHIND_MAX = 2
#: Time after which it writes one if anything changed, milliseconds.
CHECKPOINT_INTERVAL_MS = 10_000
#: States of a machine on one partition that stay in memory although nothing happens to them, bytes as they are written: in memory
#: they take about five times that, and a takeover reads them all.
LIVE_STATE_BYTES = 2 * 1024 * 1024
#: Snapshots encoded before the event loop gets its turn: some milliseconds. A loop that decides all the time comes back after its slices of
#: inputs, so that few snapshots at a time would make a checkpoint under load take longer than it should be old.
SNAPSHOT_SLICE = 128
#: Bytes of snapshots written at a time.
SNAPSHOT_WRITE_BYTES = 1024 * 1024
#: How long an execution that ended still takes commands, and a repeated start is recognised: as long as commands are kept, milliseconds.
DEDUPLICATION_WINDOW_MS = 7 * 24 * 3600 * 1000
#: Segments of topics of snapshots: bytes and milliseconds until the next begins and compaction may work on it. A takeover reads what
#: has not been compacted. No batch may be larger than a segment.
SNAPSHOT_SEGMENT_BYTES = 16 * 1024 * 1024
SNAPSHOT_SEGMENT_MS = 15 * 1000
#: Longest that something outdated waits for compaction, however little it is.
SNAPSHOT_COMPACTION_LAG_MS = 10 * 60 * 1000
#: How long a deletion in a topic of snapshots is kept: longer than a takeover reads. One that was read too slowly is found by its count.
SNAPSHOT_DELETION_MS = 60 * 1000
#: Blocks remembered by ClickHouse for deduplication, per table.
DEDUPLICATION_WINDOW_BLOCKS = 10_000
#: Result of a query, rows.
QUERY_ROWS_MAX = 1_000_000
#: Run time of a query, seconds.
QUERY_SECONDS_MAX = 60
#: Size of a query's answer, bytes as the engine counts them.
QUERY_RESULT_BYTES_MAX = 256 * 1024 * 1024
#: Memory of a query in the engine, bytes.
QUERY_MEMORY_BYTES_MAX = 1024 * 1024 * 1024
#: Rows that a query may read from the tables.
QUERY_ROWS_READ_MAX = 10_000_000_000
#: Queries at the same time; more wait.
QUERIES_MAX = 4
#: Longest wait for another query to end, seconds.
QUERY_WAIT_S_MAX = 10

assert PAYLOAD_BYTES_MAX < TOPIC_MESSAGE_BYTES_MAX < EXECUTION_STATE_BYTES_MAX < LOG_MESSAGE_BYTES_MAX
assert LOG_MESSAGE_BYTES_MAX <= SNAPSHOT_SEGMENT_BYTES
assert MATCH_PAYLOAD_BYTES_MAX < PAYLOAD_BYTES_MAX
