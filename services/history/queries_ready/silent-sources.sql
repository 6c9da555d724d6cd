-- title: Who has gone silent?
-- description: >-
--   Sources that have sent events regularly, and nothing now for many times as long as they usually pause.
-- parameters:
--   hours: {default: 24, description: How far to look back.}
--   times: {default: 10, description: How many usual pauses make a silence.}
--   limit: {default: 50, description: Most rows.}
SELECT source, count() AS events, max(time) AS last_time, round(dateDiff('millisecond', min(time), last_time) / (events - 1) / 1000, 3) AS usual_pause_s,
    round(dateDiff('millisecond', last_time, now64(6)) / 1000, 3) AS silent_s
FROM system_events
WHERE time >= now64(6) - toIntervalHour({hours:UInt32})
GROUP BY source
HAVING events >= 5 AND silent_s > {times:Float64} * usual_pause_s
ORDER BY silent_s / usual_pause_s DESC, source
LIMIT {limit:UInt32}
