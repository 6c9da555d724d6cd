-- title: How do the modules answer?
-- description: >-
--   Responses by module and operation: how many, how many errors, and the time from request to response.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
SELECT module, operation, count() AS responses, countIf(status = 'error') AS errors, topKIf(3)(error_code, error_code != '') AS error_codes,
    quantileExactIf(0.5)(after_ms, after_ms IS NOT NULL) AS p50_ms, quantileExactIf(0.95)(after_ms, after_ms IS NOT NULL) AS p95_ms
FROM
(
    SELECT response.source_module AS module, response.operation AS operation, response.status AS status,
        coalesce(tupleElement(response.error, 'code'), '') AS error_code,
        if(request.id = '', NULL, dateDiff('millisecond', request.time, response.time)) AS after_ms
    FROM (SELECT * FROM module_messages WHERE kind = 'response' AND time >= now64(6) - toIntervalHour({hours:UInt32}) LIMIT 1 BY id) AS response
    LEFT ANY JOIN (SELECT id, time FROM module_messages WHERE kind = 'request' ORDER BY time LIMIT 1 BY id) AS request
        ON request.id = assumeNotNull(response.causation_id)
)
GROUP BY module, operation
ORDER BY responses DESC, module, operation
