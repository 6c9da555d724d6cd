"""`mplp query`: parameters, forms, files, tables for people, and what it does with a gateway's answers."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from typer.testing import CliRunner

from services.cli import query_table
from services.cli.main import app
from services.cli.query import parameters_of, table
from services.cli.query_progress import sentence
from streams.errors import InvalidInput

COMPACT = b'["type","n","data"]\n["String","Nullable(Int64)","JSON"]\n["a",1,{"x":[1]}]\n["b,\\u001b[31m",null,{}]\n'
SAVED = [{"name": "slow", "title": "What is slow?", "parameters": [{"name": "limit", "required": False, "default": 10, "type": "UInt8"}]}]


class Gateway(ThreadingHTTPServer):
    status = 200
    answer: bytes = COMPACT
    cut = False  #: the connection breaks in the middle
    requests: list[dict[str, Any]]


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gateway]:
    class Handler(BaseHTTPRequestHandler):
        server: Gateway

        def do_POST(self) -> None:
            self.server.requests.append({"path": self.path, **json.loads(self.rfile.read(int(self.headers["content-length"])))})
            self._send(self.server.status, self.server.answer, len(self.server.answer) + (1 if self.server.cut else 0))

        def do_GET(self) -> None:
            body: Any = {"items": SAVED}
            if self.path.startswith("/v1/query/"):
                body = {"state": "failed", "error": {"code": "sql.memory", "message": "Too much."}}
            answer = json.dumps(body).encode()
            self._send(200, answer, len(answer))

        def _send(self, status: int, body: bytes, length: int) -> None:
            self.send_response(status)
            self.send_header("X-Mplp-Behind", "7")
            self.send_header("content-length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    with Gateway(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MPLP_HTTP_PORT", str(server.server_port))
        yield server
        server.shutdown()
        thread.join()


def mplp(*arguments: str, stdin: str | None = None) -> Any:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def asked(gateway: Gateway) -> dict[str, Any]:
    return {key: value for key, value in gateway.requests[0].items() if key not in ("query_id", "path")}


def test_it_asks_with_parameters_and_prints_a_table(gateway: Gateway) -> None:
    result = mplp("query", "SELECT 1", "--param", "since=2026-01-01", "--param", "e=a=b")
    assert asked(gateway) == {"sql": "SELECT 1", "parameters": {"since": "2026-01-01", "e": "a=b"}, "stale": False, "format": "compact"}
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "type" + " " * 11 + "n  data",
        "----------  ----  ---------",
        "a" + " " * 14 + '1  {"x":[1]}',
        "b,\\x1b[31m  NULL  {}",
    ]
    assert "7 records behind" in result.stderr


@pytest.mark.parametrize("arguments", [("--json",), ("--format", "json")])
def test_json_is_what_the_gateway_says(gateway: Gateway, arguments: tuple[str, ...]) -> None:
    gateway.answer = b'[{"n":1},\n{"n":2}]'
    assert json.loads(mplp("query", "SELECT 1", *arguments, "--stale").stdout) == [{"n": 1}, {"n": 2}]
    assert (asked(gateway)["stale"], asked(gateway)["format"]) == (True, "json")


@pytest.mark.parametrize(
    ("suffix", "form"), [("csv", "csv"), ("parquet", "parquet"), ("jsonl", "jsonl"), ("arrow", "arrow"), ("x", "json")]
)
def test_a_file_is_written_in_the_form_that_its_name_says(gateway: Gateway, tmp_path: Path, suffix: str, form: str) -> None:
    gateway.answer = b"\x00bytes\xff"
    result = mplp("query", "SELECT 1", "--out", f"answer.{suffix}")
    assert (result.exit_code, result.stdout, asked(gateway)["format"]) == (0, "", form)
    assert (tmp_path / f"answer.{suffix}").read_bytes().startswith(b"\x00bytes\xff")


def test_an_answer_that_breaks_off_leaves_no_file_and_says_why(gateway: Gateway, tmp_path: Path) -> None:
    gateway.cut = True
    result = mplp("query", "SELECT 1", "--out", "answer.csv")
    assert result.exit_code == 1
    assert "sql.memory: Too much." in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_text_comes_from_a_file_or_from_standard_input(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text("SELECT 2")
    assert mplp("query", "--file", "q.sql").exit_code == 0
    assert mplp("query", "-", stdin="SELECT 3").exit_code == 0
    assert mplp("query", stdin="SELECT 4").exit_code == 0
    assert [request["sql"] for request in gateway.requests] == ["SELECT 2", "SELECT 3", "SELECT 4"]
    assert "file.unreadable" in mplp("query", "--file", "none.sql").stderr
    assert "query.one-of" in mplp("query", "SELECT 1", "--file", "q.sql").stderr


def test_saved_queries_are_asked_and_listed(gateway: Gateway) -> None:
    assert mplp("query", "--saved", "slow", "--param", "limit=3").exit_code == 0
    assert asked(gateway) == {"saved": "slow", "parameters": {"limit": "3"}, "stale": False, "format": "compact"}
    assert mplp("query", "--list").stdout.splitlines()[1].split() == ["slow", "What", "is", "slow?", "limit=10"]
    assert json.loads(mplp("query", "--list", "--json").stdout) == SAVED


def test_refused_sql_is_a_code_and_exit_1(gateway: Gateway) -> None:
    problem = {
        "code": "sql.syntax",
        "detail": "The query cannot be parsed at line 2, column 3, near `FORM`.",
        "advice": "Read on.",
        "status": 400,
    }
    gateway.status, gateway.answer = 400, json.dumps(problem).encode()
    result = mplp("query", "SELECT 1\n  FORM x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[:3] == ["    FORM x", "    ^", "error: sql.syntax: " + str(problem["detail"])]
    assert "Read on." in result.stderr


def test_a_gateway_that_is_not_there_is_exit_3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLP_HTTP_PORT", "1")
    result = mplp("query", "SELECT 1")
    assert result.exit_code == 3
    assert "gateway.unreachable" in result.stderr


def test_progress_is_told_when_asked_for(gateway: Gateway) -> None:
    assert "rows read" in sentence(
        {"state": "running", "elapsed_ms": 1500, "rows": 0, "rows_read": 12_345_678, "rows_total": 100_000_000, "memory_bytes": 0}
    )
    assert mplp("query", "SELECT 1").stderr.splitlines() == ["The history is 7 records behind the topics."]


@pytest.mark.parametrize("text", ["x", "=1", "a b=1", "1a=2"])
def test_a_parameter_is_name_and_value(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"query\.parameter"):
        parameters_of([text])


async def rendered(rows: list[list[Any]], types: list[str], width: int | None) -> list[str]:
    async def answer() -> AsyncIterator[bytes]:
        for part in ([f"column{number}" for number in range(len(types))], types, *rows):
            yield json.dumps(part).encode()

    return [line async for line in table(answer(), width)]


async def test_wide_characters_line_up_and_long_texts_give_way() -> None:
    rows = [["世界", 1, "x" * 100], ["é", 1000, "short"]]
    lines = await rendered(rows, ["String", "UInt64", "String"], 40)
    assert lines[2].startswith("世界           1  xxxx")
    assert lines[3].startswith("é           1000  short")
    assert all(cell_len(line) <= 40 for line in lines)
    assert lines[2].endswith("…")
    assert "x" * 100 in (await rendered(rows, ["String", "UInt64", "String"], None))[2]


async def test_what_does_not_fit_side_by_side_stands_upright() -> None:
    lines = await rendered([[n] * 12 for n in range(2)], ["String"] * 12, 40)
    assert lines[0] == "-- row 1 --"
    assert lines[1] == "column0   0"
    assert lines[13] == "-- row 2 --"


async def test_no_rows_still_have_columns() -> None:
    assert await rendered([], ["String"], 40) == ["column0", "-------", "(no rows)"]


async def test_rows_beyond_those_that_decide_the_widths_are_all_there() -> None:
    count = query_table.ROWS_SEEN + 5
    lines = await rendered([[n] for n in range(count)], ["UInt64"], None)
    assert [line.strip() for line in lines[2:]] == [str(n) for n in range(count)]


@given(
    st.lists(
        st.lists(st.one_of(st.none(), st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)), min_size=3, max_size=3),
        max_size=5,
    )
)
async def test_no_table_is_wider_than_the_terminal(rows: list[list[Any]]) -> None:
    # given columns of which none is a number that must not be cut
    lines = await rendered(rows, ["String"] * 3, 60)
    assert all(cell_len(line) <= 60 and "\n" not in line and "\x1b" not in line for line in lines)
