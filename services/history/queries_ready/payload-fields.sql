-- title: What is in the payloads of an event type?
-- description: >-
--   The paths of the payloads of a type with the types of their values, of the newest events.
-- parameters:
--   type: {description: The type of event.}
--   events: {default: 1000, description: How many of the newest are looked at.}
SELECT field.1 AS path, arraySort(groupUniqArray(field.2)) AS types, count() AS events
FROM (SELECT data FROM system_events WHERE type = {type:String} ORDER BY time DESC LIMIT {events:UInt32})
ARRAY JOIN CAST(JSONAllPathsWithTypes(data), 'Array(Tuple(String, String))') AS field
GROUP BY path
ORDER BY events DESC, path
