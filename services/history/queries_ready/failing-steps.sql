-- title: Which steps fail, and how?
-- description: >-
--   Attempts that failed or timed out, by workflow, step and error code, with their share of all attempts.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
--   limit: {default: 50, description: Most rows.}
SELECT e.workflow_id AS workflow_id, s.step_id AS step_id, countIf(s.status IN ('failed', 'timed_out')) AS failures, count() AS attempts,
    round(failures / attempts, 4) AS share, topKIf(3)(s.error_code, s.error_code IS NOT NULL) AS error_codes,
    uniqExactIf(s.execution_id, s.status IN ('failed', 'timed_out')) AS executions
FROM steps AS s
INNER JOIN (SELECT execution_id, any(workflow_id) AS workflow_id FROM workflow_transitions GROUP BY execution_id) AS e
    ON e.execution_id = s.execution_id
WHERE s.started_at >= now64(6) - toIntervalHour({hours:UInt32})
GROUP BY workflow_id, step_id
HAVING failures > 0
ORDER BY failures DESC, workflow_id, step_id
LIMIT {limit:UInt32}
