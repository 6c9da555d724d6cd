"""The ClickHouse server of the tests behaves as ClickHouse does, seen by the unchanged client and by plain HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from tests.clickhouse_http.process import ClickHouseServer, database_of


@pytest.fixture
async def client(clickhouse: ClickHouseServer) -> AsyncIterator[Client]:
    async with database_of(clickhouse, "fixture") as database:
        client = clickhouse.client()
        client.command(f"CREATE DATABASE {database}")
        client.database = database
        client.command("CREATE TABLE t (n UInt32, s LowCardinality(String), m Map(String, Float64), j JSON) ENGINE = MergeTree ORDER BY n")
        yield client
        client.close()


def get(server: ClickHouseServer, body: bytes = b"", **parameters: str) -> httpx.Response:
    return httpx.post(server.url, params=parameters, content=body, auth=("mplp", "secret"), trust_env=False)


def test_rows_go_in_and_out_of_the_unchanged_client(client: Client) -> None:
    names = ["n", "s", "m", "j"]
    client.insert("t", [[n, f"s{n % 3}", {"x": n / 2}, {"deep": {"n": n}}] for n in range(1000)], column_names=names)
    client.raw_insert("t", ["n", "s"], b"1000,raw\n", fmt="CSV")
    client.raw_insert("t", ["n", "s"], iter([b"1001,", b"parts\n"]), fmt="CSV", compression=None)
    assert client.query("SELECT count(), sum(n), uniq(s) FROM t").result_rows == [(1002, sum(range(1002)), 5)]
    found = client.query("SELECT n, s, m, j.deep.n FROM t WHERE n = {n:UInt32} OR s = {s:String}", parameters={"n": 7, "s": "raw"})
    assert found.result_rows == [(7, "s1", {"x": 3.5}, 7), (1000, "raw", {}, None)]
    with client.query_row_block_stream("SELECT n FROM t ORDER BY n SETTINGS max_block_size = 100") as stream:
        assert [row[0] for block in stream for row in block] == list(range(1002))
    long = "x" * 100_000
    assert client.query("SELECT length({long:String})", parameters={"long": long}).result_rows == [(len(long),)]
    assert client.query("SELECT n FROM t WHERE n > 5000").result_rows == []
    assert client.command("SELECT getSetting('max_threads')", settings={"max_threads": 1}) == 1


def test_data_in_the_body_of_an_insert_with_a_select_is_its_input(client: Client) -> None:
    statement = "INSERT INTO t (n, s) SELECT n * 10, s FROM input('n UInt32, s String') WHERE n != 2 FORMAT CSV"
    client.command(statement, data=b"1,a\n2,b\n3,c\n")
    assert client.query("SELECT n, s FROM t ORDER BY n").result_rows == [(10, "a"), (30, "c")]


def test_errors_have_clickhouses_codes_and_statuses(client: Client, clickhouse: ClickHouseServer) -> None:
    with pytest.raises(DatabaseError) as caught:
        client.query("SELECT * FROM nowhere")
    assert caught.value.code == 60
    for sql, status, code in (("SELEC 1", 400, "62"), ("SELECT nope", 404, "47"), ("SELECT throwIf(1)", 500, "395")):
        answer = get(clickhouse, sql.encode())
        assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (status, code)
    assert get(clickhouse, b"SELECT 1", no_such_setting="1").headers["X-ClickHouse-Exception-Code"] == "115"
    late = get(clickhouse, b"SELECT throwIf(number = 150000) FROM numbers(200000) FORMAT TSV", max_block_size="10000")
    assert late.status_code == 200
    assert b"__exception__" in late.content


def test_read_only_is_read_only(client: Client, clickhouse: ClickHouseServer) -> None:
    with pytest.raises(DatabaseError) as caught:
        client.query("SELECT 1 SETTINGS max_threads = 1", settings={"readonly": 1, "max_execution_time": 9})
    assert caught.value.code == 164
    asked = httpx.get(clickhouse.url, params={"query": "DROP TABLE fixture.t"}, auth=("mplp", "secret"), trust_env=False)
    assert asked.headers["X-ClickHouse-Exception-Code"] == "164"


def test_a_wrong_password_is_refused(clickhouse: ClickHouseServer) -> None:
    with pytest.raises((DatabaseError, OperationalError)) as caught:
        clickhouse_connect.get_client(dsn=clickhouse.url, username="mplp", password="guess")
    assert caught.value.code == 516
    assert httpx.get(f"{clickhouse.url}/ping", trust_env=False).text == "Ok.\n"
    assert httpx.post(clickhouse.url, content=b"SELECT 1", trust_env=False).status_code == 403


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_answers_are_compressed_when_asked(clickhouse: ClickHouseServer, encoding: str) -> None:
    from tests.clickhouse_http.wire import compressor

    url = f"{clickhouse.url}/?enable_http_compression=1"
    body = b"SELECT number FROM numbers(3)"
    with httpx.stream("POST", url, content=body, headers={"Accept-Encoding": encoding}, auth=("mplp", "secret"), trust_env=False) as answer:
        raw = b"".join(answer.iter_raw())
        assert answer.headers["Content-Encoding"] == encoding
    name, same = compressor(encoding)
    assert (name, raw) == (encoding, same.add(b"0\n1\n2\n") + same.end())


def test_a_session_keeps_its_temporary_tables(clickhouse: ClickHouseServer) -> None:
    client = clickhouse.client(session_id="one")
    client.command("CREATE TEMPORARY TABLE kept (n UInt8)")
    client.command("INSERT INTO kept VALUES (1), (2)")
    assert client.command("SELECT sum(n) FROM kept") == 3
    client.close()
    assert get(clickhouse, b"SELECT * FROM kept").status_code == 404


async def test_a_query_ends_when_its_client_goes_or_when_it_is_killed_by_id(clickhouse: ClickHouseServer) -> None:
    slow = b"SELECT sleepEachRow(0.5) FROM numbers(1000) SETTINGS max_block_size = 1"
    auth = httpx.BasicAuth("mplp", "secret")
    running = b"SELECT count() FROM system.processes WHERE query LIKE '%sleepEach%' AND query NOT LIKE '%processes%'"

    async def until(count: bytes) -> None:
        async with asyncio.timeout(180):
            while (await asyncio.to_thread(get, clickhouse, running)).content != count + b"\n":
                await asyncio.sleep(0.05)

    async with httpx.AsyncClient(auth=auth, trust_env=False, timeout=60) as http:
        asked = asyncio.create_task(http.post(f"{clickhouse.url}/?cancel_http_readonly_queries_on_client_close=1", content=slow))
        await until(b"1")
        asked.cancel()
        await until(b"0")
        asked = asyncio.create_task(http.post(f"{clickhouse.url}/?query_id=slow-one&wait_end_of_query=1", content=slow))
        await until(b"1")
        assert (await http.post(clickhouse.url, content=b"KILL QUERY WHERE query_id = 'slow-one' ASYNC")).status_code == 200
        assert (await asked).headers["X-ClickHouse-Exception-Code"] == "394"


def test_progress_is_told_in_headers_while_a_query_runs(clickhouse: ClickHouseServer) -> None:
    options = {"send_progress_in_http_headers": "1", "http_headers_progress_interval_ms": "100", "wait_end_of_query": "1"}
    answer = get(clickhouse, b"SELECT sum(sleepEachRow(0.1)) FROM numbers(6) SETTINGS max_block_size = 1", **options)
    assert answer.headers.get_list("X-ClickHouse-Progress")
    assert '"read_rows": "6"' in answer.headers["X-ClickHouse-Summary"]


async def test_what_was_written_outlives_a_kill(tmp_path: Path) -> None:
    async with ClickHouseServer(tmp_path / "data") as server:
        client = await asyncio.to_thread(server.client)
        client.command("CREATE TABLE t (n UInt8) ENGINE = MergeTree ORDER BY n")
        client.command("INSERT INTO t VALUES (7)")
        client.close()
        await server.kill()
        with pytest.raises(OperationalError):
            server.client()
        await server.start()
        client = await asyncio.to_thread(server.client)
        assert client.command("SELECT n FROM t") == 7
        client.close()


def test_statements_of_a_cluster_are_those_of_one_node() -> None:
    from tests.clickhouse_http.engine import Request, statement_of

    text = "CREATE TABLE t ON CLUSTER 'c' (n UInt8) ENGINE = ReplicatedMergeTree('/x/{shard}', '{replica}') ORDER BY n "
    text += "SETTINGS replicated_deduplication_window = 7"
    request = Request(query=text.encode(), body=b"", database="", settings={}, parameters={}, session_id="", default_format="", query_id="")
    found = statement_of(request, "c").text
    assert "ON CLUSTER" not in found
    assert "ENGINE = MergeTree()" in found
    assert "SETTINGS non_replicated_deduplication_window = 7" in found
    assert statement_of(request, "").text == text
