-- How many records of a type came in a minute is counted when they are inserted: as a projection the counts lie in the parts of the table, so
-- a repeated insert, a lifetime, an erasure or a rebuild leaves them as exact as the rows. `event_rates` and any query that groups so reads
-- them. The filter on ids prunes the other side of a join by what was found on this side (`join_runtime_filter`), which projections cannot:
-- the records of the composites that a query picks. `cause_filter` is asked by `causation_id = …` itself, where `causes` needed ifNull around it.
ALTER TABLE workflow_transitions
    ADD PROJECTION IF NOT EXISTS by_minute (SELECT toStartOfMinute(time) AS minute, _topic, type, count() GROUP BY minute, _topic, type),
    ADD INDEX IF NOT EXISTS id_filter id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS cause_filter causation_id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS arrivals _timestamp TYPE minmax;

ALTER TABLE module_messages
    ADD PROJECTION IF NOT EXISTS by_minute (SELECT toStartOfMinute(time) AS minute, _topic, type, count() GROUP BY minute, _topic, type),
    ADD INDEX IF NOT EXISTS id_filter id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS cause_filter causation_id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS arrivals _timestamp TYPE minmax;

ALTER TABLE system_events
    ADD PROJECTION IF NOT EXISTS by_minute (SELECT toStartOfMinute(time) AS minute, _topic, type, count() GROUP BY minute, _topic, type),
    ADD INDEX IF NOT EXISTS id_filter id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS arrivals _timestamp TYPE minmax;

ALTER TABLE composite_events
    ADD PROJECTION IF NOT EXISTS by_minute (SELECT toStartOfMinute(time) AS minute, _topic, type, count() GROUP BY minute, _topic, type),
    ADD INDEX IF NOT EXISTS id_filter id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS cause_filter causation_id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS arrivals _timestamp TYPE minmax;

ALTER TABLE deliveries
    ADD PROJECTION IF NOT EXISTS by_minute (SELECT toStartOfMinute(time) AS minute, _topic, type, count() GROUP BY minute, _topic, type),
    ADD INDEX IF NOT EXISTS id_filter id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS arrivals _timestamp TYPE minmax;

ALTER TABLE workflow_commands
    ADD PROJECTION IF NOT EXISTS by_minute (SELECT toStartOfMinute(time) AS minute, _topic, type, count() GROUP BY minute, _topic, type),
    ADD INDEX IF NOT EXISTS id_filter id TYPE bloom_filter(0.001),
    ADD INDEX IF NOT EXISTS arrivals _timestamp TYPE minmax;
