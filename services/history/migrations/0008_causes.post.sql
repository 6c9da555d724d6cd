-- What was there before 0007 gets its columns and orders, in the background. Until then such rows are found by reading them.
ALTER TABLE workflow_transitions
    MATERIALIZE COLUMN _known_as,
    MATERIALIZE COLUMN _follows,
    MATERIALIZE PROJECTION by_id,
    MATERIALIZE PROJECTION by_name,
    MATERIALIZE PROJECTION by_what_it_follows,
    MATERIALIZE PROJECTION by_correlation;

ALTER TABLE module_messages
    MATERIALIZE COLUMN _known_as,
    MATERIALIZE COLUMN _follows,
    MATERIALIZE PROJECTION by_id,
    MATERIALIZE PROJECTION by_name,
    MATERIALIZE PROJECTION by_what_it_follows,
    MATERIALIZE PROJECTION by_correlation,
    MATERIALIZE PROJECTION by_execution;

ALTER TABLE system_events
    MATERIALIZE PROJECTION by_id,
    MATERIALIZE PROJECTION by_cause,
    MATERIALIZE PROJECTION by_correlation,
    MATERIALIZE PROJECTION by_subject;

ALTER TABLE composite_events
    MATERIALIZE PROJECTION by_id;

ALTER TABLE deliveries
    MATERIALIZE PROJECTION by_id,
    MATERIALIZE PROJECTION by_event;

ALTER TABLE workflow_commands
    MATERIALIZE PROJECTION by_id,
    MATERIALIZE PROJECTION by_cause;

-- The filters in whose place they are.
ALTER TABLE workflow_transitions DROP INDEX IF EXISTS ids, DROP INDEX IF EXISTS correlations;
ALTER TABLE module_messages DROP INDEX IF EXISTS ids, DROP INDEX IF EXISTS correlations, DROP INDEX IF EXISTS executions;
ALTER TABLE system_events DROP INDEX IF EXISTS ids, DROP INDEX IF EXISTS causes, DROP INDEX IF EXISTS correlations, DROP INDEX IF EXISTS subjects;
ALTER TABLE composite_events DROP INDEX IF EXISTS ids;
ALTER TABLE deliveries DROP INDEX IF EXISTS ids, DROP INDEX IF EXISTS events;
ALTER TABLE workflow_commands DROP INDEX IF EXISTS ids, DROP INDEX IF EXISTS causes;
