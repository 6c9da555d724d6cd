-- title: Where are steps tried again?
-- description: >-
--   Steps that needed more than one attempt, the most attempts first.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
--   limit: {default: 50, description: Most rows.}
SELECT execution_id, step_id, max(attempt) AS attempts, argMax(status, attempt) AS last_status, max(duration_ms) AS longest_ms,
    arrayDistinct(arrayFilter(code -> code IS NOT NULL, groupArray(error_code))) AS error_codes
FROM steps
WHERE started_at >= now64(6) - toIntervalHour({hours:UInt32})
GROUP BY execution_id, step_id
HAVING attempts > 1
ORDER BY attempts DESC, execution_id, step_id
LIMIT {limit:UInt32}
