-- title: Which steps take longest?
-- description: >-
--   Attempts at steps that ended, by workflow and step, the highest 95th percentile first.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
--   limit: {default: 10, description: Most rows.}
SELECT e.workflow_id AS workflow_id, s.step_id AS step_id, count() AS attempts, round(avg(s.duration_ms), 1) AS mean_ms,
    quantileExact(0.5)(s.duration_ms) AS p50_ms, quantileExact(0.95)(s.duration_ms) AS p95_ms, max(s.duration_ms) AS max_ms
FROM steps AS s
INNER JOIN (SELECT execution_id, any(workflow_id) AS workflow_id FROM workflow_transitions GROUP BY execution_id) AS e
    ON e.execution_id = s.execution_id
WHERE s.duration_ms IS NOT NULL AND s.started_at >= now64(6) - toIntervalHour({hours:UInt32})
GROUP BY workflow_id, step_id
ORDER BY p95_ms DESC, workflow_id, step_id
LIMIT {limit:UInt32}
