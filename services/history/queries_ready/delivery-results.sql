-- title: Do the routes deliver?
-- description: >-
--   By route: deliveries and how they ended, attempts, and the latency of those that arrived.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
SELECT route_id, countIf(status = 'delivered') AS delivered, countIf(status = 'retrying') AS retried, countIf(status IN ('failed', 'dead')) AS failed,
    uniqExact(event_id) AS events, quantileExactIf(0.5)(latency_ms, status = 'delivered') AS p50_ms,
    quantileExactIf(0.99)(latency_ms, status = 'delivered') AS p99_ms, argMaxIf(error, time, error IS NOT NULL) AS last_error
FROM deliveries
WHERE time >= now64(6) - toIntervalHour({hours:UInt32})
GROUP BY route_id
ORDER BY failed DESC, events DESC, route_id
