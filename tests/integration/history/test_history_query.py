"""Read-only SQL is read-only: hostile texts are refused and write nothing, honest ones are answered, limits hold."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.history import queries
from services.history.query import QueryLimits
from services.history.store import History
from services.history.tables import PARAMETERISED_VIEWS
from streams.errors import BackboneError, Fault, InvalidInput, TooLarge
from streams.settings import Settings

HOSTILE = [
    "SELECT 1 INTO OUTFILE '{f}'",
    "SELECT 1 INTO OUTFILE '{f}' FORMAT TSV",
    "SELECT 1) INTO OUTFILE '{f}' FORMAT TSV; SELECT (1",
    "SELECT * FROM file('/etc/passwd')",
    "SELECT file('/etc/passwd')",
    "SELECT * FROM url('http://127.0.0.1:1/', CSV, 'a String')",
    "SELECT * FROM s3('http://127.0.0.1:1/x')",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM executable('id', TSV, 'a String')",
    "SELECT 1 SETTINGS max_result_rows = 0",
    "SELECT * FROM (SELECT 1 SETTINGS readonly = 0)",
    "KILL QUERY WHERE 1",
    "SELECT 1; DROP TABLE system_events",
    "DROP TABLE system_events",
    "INSERT INTO system_events (id) VALUES ('x')",
    "INSERT INTO FUNCTION file('{f}') SELECT 1",
    "CREATE TABLE x (a Int8) ENGINE = Memory",
    "ALTER TABLE system_events DELETE WHERE 1",
    "TRUNCATE TABLE system_events",
    "SYSTEM SHUTDOWN",
    "SET readonly = 0",
    "USE system",
    "SELECT * FROM system.settings",
    "SELECT * FROM `system`.`processes`",
    "SELECT * FROM information_schema.tables",
    "SELECT 1 WHERE 'a' IN (SELECT name FROM system.databases)",
    "SELECT 1 WHERE 1 IN system.one",
    "WITH x AS (SELECT * FROM system.one) SELECT * FROM x",
    "WITH (SELECT count() FROM system.one) AS n SELECT n",
    "SELECT (SELECT name FROM system.tables LIMIT 1)",
    "SELECT * FROM merge('system', '.*')",
    "SELECT * FROM view(SELECT * FROM system.one)",
    "SELECT * FROM system_events UNION ALL SELECT * FROM system.one",
    "SELECT dictGet('a', 'b', 1)",
    "SELECT joinGet('a', 'b', 1)",
    "SELECT getSetting('readonly')",
    "SELECT sleep(3)",
    "SELECT sleepEachRow(1) FROM numbers(100)",
    "SELECT hostName()",
    "SELECT currentUser()",
    "SELECT * FROM python('x')",
    "SELECT chdb('SELECT 1')",
    "SELECT * FROM dictionary('a')",
    "SELECT * FROM numbers(1) FORMAT Null",
    "/* ; */ SELECT 1 -- \n INTO OUTFILE '{f}'",
    "EXPLAIN SELECT * FROM system.one",
    "SELECT * FROM (EXPLAIN SELECT * FROM system.one)",
    "SELECT * FROM {t:Identifier}",
    "SELECT arrayMap(x -> file('/etc/passwd'), [1])",
    "SELECT count(*) FILTER (WHERE file('/etc/passwd') != '') FROM numbers(1)",
    "SELECT * APPLY(file) FROM (SELECT '/etc/passwd')",
    "SELECT * FROM input('a Int8')",
    "BACKUP TABLE system_events TO File('{f}')",
    "ATTACH TABLE x",
    "OPTIMIZE TABLE system_events FINAL",
    "GRANT ALL ON *.* TO default",
    "SELECT * FROM migrations",
    "SELECT aiGenerate('x')",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT @@version",
    "DESCRIBE TABLE system.users",
    "DESCRIBE url('http://127.0.0.1:1')",
    "SHOW CREATE TABLE system_events",
    "SHOW TABLES FROM system",
    "SELECT evalMLMethod(1, 2)",
    "SELECT * FROM sqlite('{f}', 't')",
    "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "(((((SELECT * FROM system.one)))))",
    "SELECT\x00 1",
    "SELECT 1 FROM numbers(1) WINDOW w AS (ORDER BY file('/etc/passwd'))",
    "SELECT 1 ORDER BY file('/etc/passwd')",
    "SELECT 1 LIMIT (SELECT count() FROM system.one)",
    "SELECT addressToLine(1)",
    "WITH system AS (SELECT 1 AS one) SELECT * FROM system.one",
    "EXECUTE AS default SELECT 1",
    "SELECT * FROM generateRandom('a Int8')",
    "SELECT 1 PARALLEL WITH DROP TABLE system_events",
    "SELECT * FROM `mplp`.`migrations`",
    "SELECT * FROM mplp.system_events, system.one",
    "SELECT * FROM system_events AS s JOIN system.one AS o ON 1 = 1",
    "SELECT * FROM filesystem('/')",
    "SELECT flameGraph(1)",
    "SELECT logTrace('x')",
    "SELECT * FROM `file`('{f}')",
    "SELECT FILE('/etc/passwd')",
    "SELECT initializeAggregation('file','x')",
    "SELECT fuzzQuery('select 1')",
    "SELECT throwIf(1)",
    "SELECT * FROM loop(system.one)",
    "SELECT * FROM format(CSV, '1')",
    "SELECT * FROM null('a Int8')",
]

HONEST: list[tuple[str, dict[str, Any], list[list[Any]]]] = [
    ("SELECT count() FROM mplp.system_events;", {}, [[0]]),
    ("-- a comment\nselect 1 as x, 'it''s' /* another */ as y", {}, [[1, "it's"]]),
    (
        "WITH a AS (SELECT number AS n FROM numbers(5)) SELECT sum(n), countIf(n > 1), argMaxIf(n, n, n < 3), sumOrNull(n) FROM a",
        {}, [[10, 3, 2, 10]],
    ),
    ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT max(n) FROM r", {}, [[3]]),
    (
        "SELECT {a:Array(Int64)}, {s:String}, {n:Nullable(String)}",
        {"a": [1, 2], "s": "x'; DROP TABLE t -- \n", "n": None}, [[[1, 2], "x'; DROP TABLE t -- \n", None]],
    ),
    ("SELECT row_number() OVER w FROM numbers(2) WINDOW w AS (ORDER BY number DESC)", {}, [[1], [2]]),
    (
        "SELECT arrayMap(x -> x * 2, [1, 2]), CASE WHEN 1 THEN 'a' ELSE 'b' END, '5'::Int64, (1, 'x').2, map('k', 1)['k']",
        {}, [[[2, 4], "a", 5, "x", 1]],
    ),
    ("SELECT number FROM numbers(10) WHERE number IN (SELECT number * 2 FROM numbers(5)) ORDER BY number DESC LIMIT 2", {}, [[8], [6]]),
    (
        "SELECT toDecimal64(1.5, 2), toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0'), toInt64(9007199254740993)",
        {}, [["1.5", "61f0c404-5cb3-11e7-907b-a6006ad3dba0", 9007199254740993]],
    ),
    ("SELECT toDateTime64('2026-01-02 03:04:05.000006', 6, 'UTC'), nan, char(255)", {}, [["2026-01-02T03:04:05.000006Z", None, "\ufffd"]]),
    ("SELECT g, sum(v) FROM values('g String, v Int64', ('x', 1), ('y', 2), ('x', 3)) GROUP BY g ORDER BY g", {}, [["x", 4], ["y", 2]]),
    ("SELECT e.status, s.step_id FROM executions AS e LEFT JOIN steps AS s USING (execution_id)", {}, []),
    ("SELECT data.total::Float64, JSONExtractFloat(data_text, 'total'), data.^a, * EXCEPT (data) FROM system_events", {}, []),
]  # fmt: skip

WRONG = [
    ("SELECT nosuch FROM system_events", "sql.unknown-column"),
    ("SELECT * FROM nosuch", "sql.unknown-table"),
    ("SELCT 1", "sql.syntax"),
    ("", "sql.syntax"),
    ("-- nothing", "sql.syntax"),
    ("SELECT {x:Int64}", "sql.parameter"),
    ("SELECT " + "(" * 500 + "1" + ")" * 500, "sql.too-deep"),
    ("SELECT 1" + " + 1" * 3000, "sql.too-deep"),
    ("SELECT '" + "x" * 70_000 + "'", "sql.too-long"),
    ("SELECT number FROM numbers(1000)", "sql.too-many-rows"),
    ("SELECT repeat(toString(number), 100000) FROM numbers(90)", "sql.too-many-rows"),
    ("SELECT repeat('x', 1000000) FROM numbers(99)", "sql.memory"),
    ("SELECT count() FROM numbers(100000000000)", "sql.too-many-rows"),
    ("SELECT count() FROM numbers(1000000) AS a, numbers(1000000) AS b WHERE a.number + b.number = 7", "sql.timeout"),
    ("SELECT length(groupArray(toString(number))) FROM numbers(9000000)", "sql.memory"),
]  # fmt: skip

LIMITS = QueryLimits(seconds=2, rows=100, result_bytes=5_000_000, memory_bytes=100_000_000)


@pytest.fixture(scope="module")
async def history(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[History]:
    async with History(Settings(data_dir=tmp_path_factory.mktemp("history"))) as history:
        yield history


@pytest.mark.parametrize("sql", HOSTILE)
async def test_hostile_texts_are_refused_and_write_nothing(history: History, tmp_path: Path, sql: str) -> None:
    target = tmp_path / "written"
    with pytest.raises(BackboneError, match=r"^sql\.") as refused:
        await history.query(sql.replace("{f}", str(target)))
    assert refused.value.fault is Fault.CALLER
    assert refused.value.exit_code == 1
    assert not target.exists()
    assert (await history.query("SELECT count() FROM system_events")).rows() == [[0]]


@pytest.mark.parametrize(("sql", "parameters", "rows"), HONEST)
async def test_honest_queries_are_answered(history: History, sql: str, parameters: dict[str, Any], rows: list[list[Any]]) -> None:
    assert (await history.query(sql, parameters)).rows() == rows


@pytest.mark.parametrize(("sql", "code"), WRONG)
async def test_wrong_and_costly_queries_have_a_code(history: History, sql: str, code: str) -> None:
    with pytest.raises(BackboneError) as refused:
        await history.query(sql, limits=LIMITS)
    assert refused.value.code == code
    # What the failed query had already written of its answer must not come before the next one's.
    assert (await history.query("SELECT 1 AS x", limits=LIMITS)).objects() == [{"x": 1}]


async def test_a_step_that_the_engine_cannot_end_does_not_keep_its_caller(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    monkeypatch.setattr(queries, "OVERTIME_S", 0.05)
    try:
        with pytest.raises(TooLarge, match="could not be ended") as refused:
            await history.queries._whole(lambda *_: stuck.wait(60), "SELECT 1", None, replace(LIMITS, seconds=0))
    finally:
        stuck.set()
    assert refused.value.code == "sql.timeout"
    assert (await history.query("SELECT 1 AS x", limits=LIMITS)).objects() == [{"x": 1}]


async def test_tables_are_listed_and_described(history: History) -> None:
    names = [row[0] for row in (await history.query("SHOW TABLES")).rows()]
    assert {"system_events", "log_records", "executions", "steps", "event_rates"} <= set(names)
    for name in set(names) - set(PARAMETERISED_VIEWS):
        assert (await history.query(f"DESCRIBE TABLE {name}")).rows()
    with pytest.raises(InvalidInput, match="executions_at is a view with parameters"):
        await history.query("DESCRIBE executions_at")
    at = "DESCRIBE (SELECT execution_id FROM executions_at(at = '2026-01-01T00:00:00Z'))"
    assert [row[0] for row in (await history.query(at)).rows()] == ["execution_id"]
    columns = {row[0]: row[1] for row in (await history.query("describe mplp.executions")).rows()}
    assert list(columns) == ["execution_id", "workflow_id", "status", "started_at", "ended_at", "duration_ms", "failed_steps"]
    steps = [row[0] for row in (await history.query("DESC steps;")).rows()]
    assert steps == ["execution_id", "step_id", "attempt", "status", "started_at", "ended_at", "duration_ms", "error_code"]


async def test_a_cancelled_call_ends_its_query(history: History) -> None:
    long = QueryLimits(seconds=50)
    asked = asyncio.create_task(
        history.query("SELECT count() FROM numbers(1000000) AS a, numbers(1000000) AS b WHERE a.number + b.number = 7", limits=long)
    )
    async with asyncio.timeout(180):
        while not await running(history):
            await asyncio.sleep(0.05)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        while await running(history):
            await asyncio.sleep(0.05)


async def running(history: History) -> int:
    sql = "SELECT count() FROM system.processes WHERE query LIKE '%mplp-query-%' AND query NOT LIKE '%system.processes%'"
    return int((await history._keeper.run(lambda client: client.query(sql))).result_rows[0][0])


async def test_what_is_written_into_parameters_stays_a_value(history: History) -> None:
    texts = ["'", "\\", "\\'", "\t\n", "`", '"', "🐙", "{x:String}", "'); DROP TABLE system_events; --", "\\N", "%", ""]
    for text in texts:
        assert (await history.query("SELECT {t:String} AS t", {"t": text})).rows() == [[text]]


@pytest.mark.parametrize("parameters", [{"a b": 1}, {"x": {"y": 1}}, {"x": [[1]]}])
async def test_odd_parameters_are_refused(history: History, parameters: dict[str, Any]) -> None:
    with pytest.raises(BackboneError) as refused:
        await history.query("SELECT 1", parameters)
    assert refused.value.code == "sql.parameter"
