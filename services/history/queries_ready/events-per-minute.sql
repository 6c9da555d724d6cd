-- title: How many events came, minute by minute?
-- description: >-
--   All records by the minute of their own time, minutes without any included.
-- parameters:
--   hours: {default: 1, description: How far to look back.}
--   type: {default: '%', description: Only types like this; a percent sign stands for anything.}
SELECT minute, sum(events) AS events
FROM event_rates
WHERE minute >= toStartOfMinute(now64(6)) - toIntervalHour({hours:UInt32}) AND type LIKE {type:String}
GROUP BY minute
ORDER BY minute WITH FILL STEP toIntervalMinute(1)
