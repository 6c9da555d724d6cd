"""`mplp query`: parameters, formats, and what it does with a gateway's answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.cli.main import app
from services.cli.query import Format, parameters_of, render
from streams.errors import InvalidInput

ROWS = [{"type": "a", "n": 1, "data": {"x": [1]}}, {"type": "b,\x1b[31m", "n": None, "data": {}}]


class Gateway(ThreadingHTTPServer):
    status = 200
    answer: Any = ROWS
    requests: list[dict[str, Any]]


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gateway]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server = self.server
            assert isinstance(server, Gateway)
            server.requests.append({"path": self.path, **json.loads(self.rfile.read(int(self.headers["content-length"])))})
            body = json.dumps(server.answer).encode()
            self.send_response(server.status)
            self.send_header("X-Mplp-Behind", "7")
            self.send_header("content-length", str(len(body)))
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


def mplp(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_it_asks_with_parameters_and_prints_a_table(gateway: Gateway) -> None:
    result = mplp("query", "SELECT 1", "--param", "since=2026-01-01", "--param", "e=a=b")
    assert gateway.requests == [{"path": "/v1/query", "sql": "SELECT 1", "parameters": {"since": "2026-01-01", "e": "a=b"}, "stale": False}]
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].split() == ["TYPE", "N", "DATA"]
    assert "\x1b" not in result.stdout
    assert "7 records behind" in result.stderr


@pytest.mark.parametrize("arguments", [("--json",), ("--format", "json")])
def test_json_is_an_array_of_objects(gateway: Gateway, arguments: tuple[str, ...]) -> None:
    assert json.loads(mplp("query", "SELECT 1", *arguments, "--stale").stdout) == ROWS
    assert gateway.requests[0]["stale"] is True


def test_refused_sql_is_a_code_and_exit_1(gateway: Gateway) -> None:
    gateway.status, gateway.answer = 403, {"code": "sql.read-only", "detail": "Only SELECT can be asked.", "status": 403}
    result = mplp("query", "DROP TABLE x")
    assert result.exit_code == 1
    assert "sql.read-only" in result.stderr
    assert result.stdout == ""


def test_a_gateway_that_is_not_there_is_exit_3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLP_HTTP_PORT", "1")
    result = mplp("query", "SELECT 1")
    assert result.exit_code == 3
    assert "gateway.unreachable" in result.stderr


def test_other_formats() -> None:
    assert render(ROWS, Format.JSONL).splitlines()[0] == '{"type":"a","n":1,"data":{"x":[1]}}'
    assert render(ROWS, Format.CSV) == 'type,n,data\na,1,"{""x"":[1]}"\n"b,\x1b[31m",,{}'
    assert [render([], format) for format in Format] == ["(no rows)", "[]", "", ""]


@pytest.mark.parametrize("text", ["x", "=1", "a b=1", "1a=2"])
def test_a_parameter_is_name_and_value(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"query\.parameter"):
        parameters_of([text])
