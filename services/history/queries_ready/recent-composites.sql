-- title: What did the rules find?
-- description: >-
--   Composite events that stand, the newest first, with their explanation.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
--   rule: {default: null, description: Only this rule; all if not given.}
--   limit: {default: 50, description: Most rows.}
SELECT time, rule_id, severity, confidence, group_key, event_count, explanation, correlation_id, id
FROM
(
    SELECT * FROM composite_events WHERE time >= now64(6) - toIntervalHour({hours:UInt32})
        AND ({rule:Nullable(String)} IS NULL OR rule_id = {rule:Nullable(String)})
    ORDER BY revision DESC
    LIMIT 1 BY id
)
WHERE NOT retracted
ORDER BY time DESC, id
LIMIT {limit:UInt32}
