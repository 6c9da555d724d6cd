# ruff: noqa: E501  a table is read a line at a time
"""What analysts ask every day, with the answers of the small history in `world`."""

from __future__ import annotations

from typing import Any

EVENTS = "SELECT toInt64(data.count) AS n, data.amount::Float64 AS amount, * FROM system_events WHERE type LIKE 'order.%'"

#: (text, rows).
ANSWERS: tuple[tuple[str, list[list[Any]]], ...] = (
    # Counting and grouping
    ("SELECT count() FROM system_events", [[13]]),
    ("SELECT type, count() AS n FROM system_events GROUP BY type ORDER BY n DESC, type", [["order.paid", 6], ["order.shipped", 6], ["odd.text", 1]]),
    ("SELECT type, count() FROM system_events GROUP BY ALL HAVING count() > 1 ORDER BY ALL", [["order.paid", 6], ["order.shipped", 6]]),
    ("SELECT countIf(severity = 'error'), countDistinct(source), uniq(subject), uniqExact(type), uniqHLL12(type) FROM system_events", [[3, 3, 4, 3, 3]]),
    ("SELECT DISTINCT source FROM system_events ORDER BY source DESC", [["shop-b"], ["shop-a"], ["else"]]),
    ("SELECT DISTINCT ON (source) source, id FROM system_events ORDER BY source, time LIMIT 2", [["else", "odd"], ["shop-a", "order-0"]]),
    ("SELECT status, count() FROM executions GROUP BY status ORDER BY status", [["completed", 1], ["failed", 1], ["running", 1]]),
    ("SELECT source, type, count() FROM system_events GROUP BY GROUPING SETS ((source), (type)) ORDER BY ALL LIMIT 2", [["", "odd.text", 1], ["", "order.paid", 6]]),
    ("SELECT source, count() AS n FROM system_events GROUP BY ROLLUP(source) ORDER BY n DESC, source LIMIT 2", [["", 13], ["shop-a", 6]]),
    ("SELECT source, type, count() AS n FROM system_events GROUP BY CUBE(source, type) ORDER BY n DESC, source LIMIT 1", [["", "", 13]]),
    ("SELECT type, count(), grouping(type) FROM system_events GROUP BY type WITH ROLLUP ORDER BY 3, 1 LIMIT 1", [["odd.text", 1, 0]]),
    ("SELECT type, count() AS n FROM system_events GROUP BY type WITH TOTALS ORDER BY type LIMIT 1", [["odd.text", 1]]),
    # Payloads
    ("SELECT sum(data.amount::Float64) FROM system_events", [[72.0]]),
    ("SELECT sum(data.amount.:Float64), max(data.count.:Int64) FROM system_events", [[72.0, 11]]),
    ("SELECT data.customer.name::String AS c, sum(data.count::Int64) FROM system_events WHERE type != 'odd.text' GROUP BY c ORDER BY c", [["c0", 18], ["c1", 22], ["c2", 26]]),
    ("SELECT JSONExtractString(data_text, 'customer', 'name'), JSONExtractBool(data_text, 'customer', 'vip') FROM system_events WHERE id = 'order-4'", [["c1", False]]),
    ("SELECT JSONLength(data_text, 'items'), JSONType(data_text, 'amount'), JSONHas(data_text, 'note') FROM system_events WHERE id = 'order-2'", [[2, "Double", 0]]),
    ("SELECT simpleJSONExtractInt(data_text, 'count'), visitParamExtractInt(data_text, 'count') FROM system_events WHERE id = 'order-7'", [[7, 7]]),
    ("SELECT JSON_VALUE(data_text, '$.customer.name'), JSON_EXISTS(data_text, '$.items') FROM system_events WHERE id = 'order-5'", [["c2", 1]]),
    ("SELECT arrayMap(x -> JSONExtractString(x, 'sku'), JSONExtractArrayRaw(data_text, 'items')) FROM system_events WHERE id = 'order-2'", [[["s0", "s1"]]]),
    ("SELECT JSONExtract(data_text, 'items', 'Array(Tuple(sku String, quantity Int64))').quantity FROM system_events WHERE id = 'order-2'", [[[1, 2]]]),
    ("SELECT item, count() FROM (SELECT arrayJoin(JSONExtractArrayRaw(data_text, 'items')) AS raw, JSONExtractString(raw, 'sku') AS item FROM system_events) GROUP BY item ORDER BY item", [["s0", 8], ["s1", 4]]),
    ("SELECT id, q FROM system_events ARRAY JOIN JSONExtract(data_text, 'items', 'Array(Tuple(quantity Int64))').quantity AS q WHERE id = 'order-5' ORDER BY q", [["order-5", 1], ["order-5", 2]]),
    ("SELECT count() FROM system_events WHERE data.note IS NOT NULL", [[2]]),
    ("SELECT coalesce(data.note::Nullable(String), 'none') AS note, count() FROM system_events GROUP BY note ORDER BY note", [["none", 11], ["note 0", 1], ["note 1", 1]]),
    # Common table expressions, subqueries, set operations
    (f"WITH o AS ({EVENTS}), big AS (SELECT * FROM o WHERE n > 9) SELECT id FROM big ORDER BY n", [["order-10"], ["order-11"]]),
    ("WITH (SELECT avg(data.count::Nullable(Int64)) FROM system_events) AS mean SELECT count() FROM system_events WHERE data.count::Nullable(Int64) > mean", [[6]]),
    ("WITH 5 AS least, [10, 11] AS some SELECT count() FROM system_events WHERE data.count::Nullable(Int64) IN some AND data.count::Nullable(Int64) > least", [[2]]),
    ("WITH RECURSIVE fib AS (SELECT 0 AS a, 1 AS b UNION ALL SELECT b, a + b FROM fib WHERE b < 50) SELECT max(b) FROM fib", [[55]]),
    ("SELECT id FROM system_events WHERE id IN (SELECT event_id FROM deliveries WHERE status = 'dead')", [["order-2"]]),
    ("SELECT count() FROM system_events WHERE (source, type) NOT IN (('shop-a', 'order.paid'), ('else', 'odd.text'))", [[6]]),
    ("SELECT count() FROM system_events AS e WHERE EXISTS (SELECT 1 FROM deliveries AS d WHERE d.event_id = e.id)", [[3]]),
    ("SELECT execution_id FROM executions EXCEPT SELECT execution_id FROM executions WHERE status != 'running'", [["e3"]]),
    ("SELECT type FROM system_events INTERSECT DISTINCT SELECT 'odd.text'", [["odd.text"]]),
    ("SELECT sum(n) FROM (SELECT count() AS n FROM system_events UNION ALL SELECT count() FROM deliveries)", [[16]]),
    # Joins
    ("SELECT e.id, d.latency_ms FROM system_events AS e INNER JOIN deliveries AS d ON d.event_id = e.id WHERE d.status = 'delivered' ORDER BY e.id", [["order-0", 10.0], ["order-1", 20.0]]),
    ("SELECT count() FROM system_events AS e LEFT ANTI JOIN deliveries AS d ON d.event_id = e.id", [[10]]),
    ("SELECT count() FROM system_events AS e LEFT SEMI JOIN deliveries AS d ON d.event_id = e.id", [[3]]),
    ("SELECT s.step_id, s.attempt FROM executions AS x JOIN steps AS s USING (execution_id) WHERE x.status = 'failed' ORDER BY s.attempt", [["a", 1], ["a", 2]]),
    ("SELECT count() FROM executions AS a FULL OUTER JOIN steps AS b ON a.execution_id = b.execution_id", [[5]]),
    ("SELECT a.x, b.y FROM (SELECT 1 AS x) AS a CROSS JOIN (SELECT 2 AS y) AS b", [[1, 2]]),
    (
        "SELECT a.t, b.v FROM values('t UInt8, k UInt8', (5, 1), (9, 1)) AS a "
        "ASOF LEFT JOIN values('t UInt8, k UInt8, v String', (1, 1, 'old'), (6, 1, 'new')) AS b ON a.k = b.k AND a.t >= b.t ORDER BY a.t",
        [[5, "old"], [9, "new"]],
    ),
    (
        "SELECT request.id, dateDiff('millisecond', request.time, response.time) FROM module_messages AS request "
        "JOIN module_messages AS response ON response.causation_id = request.id WHERE request.kind = 'request' ORDER BY 1",
        [["request-0", 40], ["request-1", 80]],
    ),
    # Windows
    (f"SELECT id FROM ({EVENTS}) QUALIFY row_number() OVER (PARTITION BY source ORDER BY n DESC) = 1 ORDER BY id", [["order-10"], ["order-11"]]),
    (f"SELECT n, sum(n) OVER (ORDER BY n), lagInFrame(n, 1, -1) OVER (ORDER BY n) FROM ({EVENTS}) ORDER BY n LIMIT 3", [[0, 0, -1], [1, 1, 0], [2, 3, 1]]),
    (f"SELECT n, avg(n) OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS m FROM ({EVENTS}) ORDER BY n LIMIT 2", [[0, 0.5], [1, 1.0]]),
    (f"SELECT n, rank() OVER w, dense_rank() OVER w, first_value(n) OVER w, ntile(2) OVER w FROM ({EVENTS}) WINDOW w AS (ORDER BY n) ORDER BY n DESC LIMIT 1", [[11, 12, 12, 0, 2]]),
    # Aggregate functions and combinators
    (f"SELECT min(n), max(n), avg(n), median(n), quantileExact(0.9)(n), argMax(id, n), any(n) >= 0 FROM ({EVENTS})", [[0, 11, 5.5, 5.5, 10, "order-11", True]]),
    (f"SELECT quantiles(0.25, 0.5)(n), quantilesExact(0.5, 0.99)(n), quantileTDigest(0.5)(n) BETWEEN 4 AND 7 FROM ({EVENTS})", [[[2.75, 5.5], [6, 11], True]]),
    (f"SELECT sumIf(n, severity = 'error'), avgOrNullIf(n, n > 99), uniqIf(source, n < 4), sumDistinct(n % 3), maxOrDefaultIf(n, 0) FROM ({EVENTS})", [[21, None, 2, 3, 0]]),
    (f"SELECT sumMerge(s), uniqMerge(u) FROM (SELECT sumState(n) AS s, uniqState(subject) AS u FROM ({EVENTS}) GROUP BY source)", [[66, 3]]),
    (f"SELECT groupArray(n), groupUniqArray(1)(type), groupArraySorted(2)(n) FROM (SELECT * FROM ({EVENTS}) WHERE n < 3 AND type = 'order.paid' ORDER BY n)", [[[0, 2], ["order.paid"], [0, 2]]]),
    (f"SELECT topK(1)(type), sumMap(map(source, n)), stddevPop(n) > 3, corr(n, amount), bitAnd(groupBitOr(n), 7) FROM ({EVENTS}) WHERE source = 'shop-a'", [[["order.paid"], {"shop-a": 30}, True, 1, 6]]),
    ("SELECT sumForEach([1, 2]), sumArray([1, 2]), avgWeighted(number, 1) FROM numbers(2)", [[[2, 4], 6, 0.5]]),
    ("SELECT windowFunnel(60)(toDateTime(time), type = 'execution.started', type = 'execution.completed') FROM workflow_transitions WHERE execution_id = 'e1'", [[2]]),
    ("SELECT sequenceMatch('(?1).*(?2)')(toDateTime(time), type = 'step.retried', type = 'step.failed') FROM workflow_transitions WHERE execution_id = 'e2'", [[1]]),
    # Order and limits
    ("SELECT type, id FROM system_events ORDER BY type, time DESC LIMIT 1 BY type", [["odd.text", "odd"], ["order.paid", "order-10"], ["order.shipped", "order-11"]]),
    (f"SELECT n FROM ({EVENTS}) ORDER BY n DESC LIMIT 2 OFFSET 1", [[10], [9]]),
    (f"SELECT n FROM ({EVENTS}) ORDER BY n % 2, n FETCH FIRST 1 ROW ONLY", [[0]]),
    (f"SELECT n % 2 AS p FROM ({EVENTS}) ORDER BY p LIMIT 1 WITH TIES", [[0]] * 6),
    ("SELECT n, v FROM values('n UInt8, v String', (1, 'a'), (4, 'b')) ORDER BY n WITH FILL FROM 1 TO 6 STEP 1 INTERPOLATE (v AS v)", [[1, "a"], [2, "a"], [3, "a"], [4, "b"], [5, "b"]]),
    ("SELECT toStartOfInterval(time, INTERVAL 10 MINUTE) - toStartOfHour(time) AS at, count() FROM system_events GROUP BY at ORDER BY at", [[0, 11], [600, 2]]),
    ("SELECT minute - toStartOfHour(minute) AS at, events FROM event_rates WHERE type LIKE 'order.%' ORDER BY minute LIMIT 2", [[0, 1], [60, 1]]),
    # Dates
    ("SELECT toYear(t), toMonth(t), toDayOfWeek(t), toISOWeek(t), formatDateTime(t, '%Y-%m-%d %H:%i') FROM (SELECT toDateTime('2026-03-04 05:06:07', 'UTC') AS t)", [[2026, 3, 3, 10, "2026-03-04 05:06"]]),
    ("SELECT dateDiff('day', toDate('2026-01-30'), toDate('2026-03-01')), toDate('2026-01-31') + INTERVAL 1 MONTH, addDays(toDate('2026-01-01'), 2)", [[30, "2026-02-28", "2026-01-03"]]),
    ("SELECT toTimeZone(toDateTime('2026-01-01 00:00:00', 'UTC'), 'Europe/Berlin') = toDateTime('2026-01-01 01:00:00', 'Europe/Berlin')", [[True]]),
    ("SELECT date_trunc('hour', toDateTime('2026-01-01 05:06:07', 'UTC')), EXTRACT(YEAR FROM toDate('2026-01-01')), parseDateTimeBestEffortOrNull('never')", [["2026-01-01T05:00:00Z", 2026, None]]),
    ("SELECT count() FROM system_events WHERE time < now64() - INTERVAL 20 YEAR OR time > now() + toIntervalYear(20)", [[0]]),
    ("SELECT count() FROM system_events WHERE time BETWEEN (SELECT min(time) FROM system_events) AND (SELECT min(time) + INTERVAL 3 MINUTE FROM system_events)", [[5]]),
    # Arrays, maps, tuples, texts, numbers
    ("SELECT arraySum(x -> x * x, [1, 2, 3]), arrayFilter(x -> x > 1, [1, 2]), arraySort([3, 1]), arrayReduce('max', [1, 7]), arrayZip([1], ['a'])", [[14, [2], [1, 3], 7, [[1, "a"]]]]),
    ("SELECT mapKeys(m), m['b'], mapContains(m, 'z'), mapFilter((k, v) -> v > 1, m) FROM (SELECT map('a', 1, 'b', 2) AS m)", [[["a", "b"], 2, 0, {"b": 2}]]),
    ("SELECT length(event_ids), has(event_ids, 'order-1'), group_key['customer'] FROM composite_events WHERE retracted", [[3, True, "c1"]]),
    ("SELECT splitByChar('-', id)[2], upper(type), replaceRegexpAll(type, '[aeiou]', '_'), extract(id, '[0-9]+'), id ILIKE 'ORDER%' FROM system_events WHERE id = 'order-3'", [["3", "ORDER.SHIPPED", "_rd_r.sh_pp_d", "3", True]]),
    ("SELECT match(id, '^o.*1$'), position(id, 'der'), substring(id, 1, 3), startsWith(id, 'or'), format('{}!', id), id || '?' FROM system_events WHERE id = 'order-11'", [[1, 3, "ord", 1, "order-11!", "order-11?"]]),
    ("SELECT round(2.345, 2), intDiv(7, 2), 7 % 4, if(1 > 2, 'a', 'b'), multiIf(0, 1, 2), nullIf(1, 1), ifNull(NULL, 3), greatest(1, 5), bitCount(7)", [[2.35, 3, 3, "b", 2, None, 3, 5, 3]]),
    ("SELECT hex('a'), base64Encode('a'), lower(hex(MD5(''))), toTypeName(1.5), isNull(NULL), toString(1) = '1', bar(1, 0, 2, 2)", [["61", "YQ==", "d41d8cd98f00b204e9800998ecf8427e", "Float64", True, True, "█"]]),
    # Columns by pattern
    ("SELECT COLUMNS('^(id|type)$') FROM system_events WHERE id = 'odd'", [["odd", "odd.text"]]),
    ("SELECT * EXCEPT (b) REPLACE (a + 1 AS a) FROM (SELECT 1 AS a, 2 AS b)", [[2]]),
    ("SELECT COLUMNS('n') APPLY(max) FROM (SELECT number AS n FROM numbers(3))", [[2]]),
    # Views
    ("SELECT execution_id, duration_ms, failed_steps FROM executions WHERE ended_at IS NOT NULL ORDER BY execution_id", [["e1", 60000, 0], ["e2", 50000, 1]]),
    ("SELECT record, count() FROM records GROUP BY record ORDER BY record LIMIT 2", [["CompositeEvent", 3], ["Delivery", 3]]),
    ("SELECT status FROM executions_at(at = (SELECT min(time) + INTERVAL 65 SECOND FROM workflow_transitions WHERE execution_id = 'e1')) WHERE execution_id = 'e1'", [["running"]]),
    ("SELECT execution_id, status FROM mplp.executions_at(at = '2100-01-01T00:00:00Z') ORDER BY 1", [["e1", "completed"], ["e2", "failed"], ["e3", "running"]]),
    ("SELECT step_id, status FROM steps_at(at = '2100-01-01T00:00:00Z') WHERE execution_id = 'e1' ORDER BY 1", [["a", "completed"], ["b", "completed"]]),
    ("SELECT count() FROM (SELECT * FROM module_latency UNION ALL SELECT * FROM module_latency) WHERE 0", [[0]]),
    ("SELECT count() FROM causes(id = 'response-0') WHERE 0", [[0]]),
    ("SELECT count() > 0 FROM delivery_health", [[True]]),
    ("SELECT count() > 0 FROM ingest_lag", [[True]]),
    ("SELECT count() FROM composites_with_events WHERE composite_id = 'composite-0'", [[3]]),
)  # fmt: skip
