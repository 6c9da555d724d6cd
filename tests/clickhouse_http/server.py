"""ClickHouse's HTTP protocol: who asks, what is asked, and how answers, errors and progress travel."""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import select
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.clickhouse_http import wire
from tests.clickhouse_http.engine import RESERVED, Engine, EngineError, Request, Statement

#: How often a waiting request looks whether its client is still there, seconds.
LOOK_S = 0.05
_CREDENTIALS = (
    "Code: 516. DB::Exception: {}: Authentication failed: password is incorrect, or there is no user with such name. "
    "(AUTHENTICATION_FAILED)"
)


class Server(ThreadingHTTPServer):
    """Serves one engine."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], engine: Engine, users: Mapping[str, str]) -> None:
        """`users`: name → password."""
        super().__init__(address, Handler)
        self.engine, self.users = engine, users

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no error of ours."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._serve(read_only=True)

    def do_POST(self) -> None:
        self._serve(read_only=False)

    def _serve(self, *, read_only: bool) -> None:
        url = urlsplit(self.path)
        self._begun = False
        try:
            body = self._body()
            if url.path in ("/ping", "/replicas_status") or (url.path == "/" and read_only and not url.query and not body):
                self._answer(200, b"Ok.\n", {"Content-Type": "text/html; charset=UTF-8"})
                return
            arguments = dict(parse_qsl(url.query, keep_blank_values=True))
            user = self._user(arguments)
            if user is None:
                self._refuse(_CREDENTIALS.format(self._named_user(arguments)))
                return
            request = self._request(arguments, body, read_only=read_only)
            self._run(request, arguments)
        except ValueError as error:
            self._refuse(f"Code: 48. DB::Exception: {error} (NOT_IMPLEMENTED)")
        except EngineError as error:
            self._refuse(str(error))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    # -- what comes in

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return wire.decompressed(body, self.headers.get("Content-Encoding", ""))

    def _basic(self) -> tuple[str, str] | None:
        kind, _, text = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "basic":
            return None
        name, _, password = base64.b64decode(text).decode().partition(":")
        return name, password

    def _named_user(self, arguments: Mapping[str, str]) -> str:
        basic = self._basic()
        return basic[0] if basic else self.headers.get("X-ClickHouse-User") or arguments.get("user") or "default"

    def _user(self, arguments: Mapping[str, str]) -> str | None:
        """The user, None if name or password is wrong."""
        basic = self._basic()
        name = self._named_user(arguments)
        password = basic[1] if basic else self.headers.get("X-ClickHouse-Key") or arguments.get("password") or ""
        return name if self.server.users.get(name) == password else None

    def _request(self, arguments: dict[str, str], body: bytes, *, read_only: bool) -> Request:
        query = arguments.get("query", "").encode()
        content_type = self.headers.get("Content-Type", "")
        if content_type.startswith("multipart/form-data"):
            for name, value in wire.form_fields(body, content_type).items():
                if name == "query":
                    query += value
                else:
                    arguments[name] = value.decode()
            body = b""
        if arguments.get("compress") == "1" or arguments.get("decompress") == "1":
            raise ValueError("Compressed native blocks are not supported.")
        settings = {name: value for name, value in arguments.items() if name not in RESERVED and not name.startswith("param_")}
        if read_only:
            settings.setdefault("readonly", "2")
        return Request(
            query=query,
            body=body,
            database=arguments.get("database") or self.headers.get("X-ClickHouse-Database") or "",
            settings=settings,
            parameters={name.removeprefix("param_"): value for name, value in arguments.items() if name.startswith("param_")},
            session_id=arguments.get("session_id", ""),
            default_format=arguments.get("default_format") or self.headers.get("X-ClickHouse-Format") or "",
            query_id=arguments.get("query_id") or str(uuid.uuid4()),
        )

    # -- what goes out

    def _run(self, request: Request, arguments: Mapping[str, str]) -> None:
        """The engine works in a thread of its own, so that progress can be told and a client that goes is seen."""
        statement = self.server.engine.statement(request)
        results: queue.Queue[bytes | EngineError | None] = queue.Queue(maxsize=4)
        progress: dict[str, int] = {}
        stopped = threading.Event()

        def put(item: bytes | EngineError | None) -> None:
            while not stopped.is_set():
                with contextlib.suppress(queue.Full):
                    results.put(item, timeout=LOOK_S)
                    return

        def work() -> None:
            try:
                with self.server.engine.running(request, statement, progress.update) as answer:
                    for chunk in answer:
                        put(chunk)
                        if stopped.is_set():
                            return
                put(None)
            except EngineError as error:
                put(error)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        try:
            self._send(request, statement, arguments, results, progress)
        except (BrokenPipeError, ConnectionResetError):
            if arguments.get("cancel_http_readonly_queries_on_client_close") == "1":
                self.server.engine.kill(request.query_id)
            raise
        finally:
            stopped.set()
            worker.join()

    def _send(
        self, request: Request, statement: Statement, arguments: Mapping[str, str],
        results: queue.Queue[bytes | EngineError | None], progress: Mapping[str, int],
    ) -> None:  # fmt: skip
        interval_s = int(arguments.get("http_headers_progress_interval_ms", "100")) / 1000
        tells = arguments.get("send_progress_in_http_headers") == "1"
        first = self._next(results, progress, interval_s if tells else None)
        whole = arguments.get("wait_end_of_query") == "1" or not statement.streams
        chunks: Iterator[bytes]
        if whole:
            parts = [*([first] if isinstance(first, bytes) else [])]
            while isinstance(first, bytes):
                first = self._next(results, progress, interval_s if tells else None)
                parts += [first] if isinstance(first, bytes) else []
            if isinstance(first, EngineError):
                raise first
            chunks = iter(parts)
        else:
            if isinstance(first, EngineError):
                raise first
            chunks = self._following(first, results)
        tag = uuid.uuid4().hex[:16]
        name, compressor = wire.compressor(
            self.headers.get("Accept-Encoding", "") if arguments.get("enable_http_compression") == "1" else ""
        )
        headers = {
            "Content-Type": "application/octet-stream",
            "X-ClickHouse-Query-Id": request.query_id,
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Server-Display-Name": "clickhouse-http",
            "X-ClickHouse-Exception-Tag": tag,
            "X-ClickHouse-Summary": _summary(progress),
            "Transfer-Encoding": "chunked",
            **({"X-ClickHouse-Format": statement.format} if statement.answers else {}),
            **({"Content-Encoding": name} if name else {}),
        }
        self._head(200, headers)
        try:
            for chunk in chunks:
                self._chunk(compressor.add(chunk))
        except EngineError as error:
            self._chunk(compressor.add(wire.tagged_exception(str(error), tag)))
        self._chunk(compressor.end())
        self.wfile.write(b"0\r\n\r\n")

    def _next(
        self, results: queue.Queue[bytes | EngineError | None], progress: Mapping[str, int], interval_s: float | None
    ) -> bytes | EngineError | None:
        """The next part of an answer. Tells progress by headers meanwhile, and sees when the client goes."""
        waited_s = 0.0
        while True:
            with contextlib.suppress(queue.Empty):
                return results.get(timeout=LOOK_S)
            if self._has_gone():
                raise BrokenPipeError
            waited_s += LOOK_S
            if interval_s is not None and waited_s >= interval_s:
                waited_s = 0.0
                self._head(200, {"X-ClickHouse-Progress": _summary(progress)}, more=True)

    def _following(self, first: bytes | None, results: queue.Queue[bytes | EngineError | None]) -> Iterator[bytes]:
        part: bytes | EngineError | None = first
        while part is not None:
            if isinstance(part, EngineError):
                raise part
            yield part
            part = self._next(results, {}, None)

    def _has_gone(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except ValueError:  # TLS knows no peeking: what is readable there between requests is the goodbye
            return True
        except OSError:
            return True

    def _head(self, status: int, headers: Mapping[str, str], *, more: bool = False) -> None:
        if not self._begun:
            self._begun = True
            self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if more:
            self.flush_headers()
        else:
            self.end_headers()

    def _chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _refuse(self, message: str) -> None:
        code = wire.code_of(message)
        headers = {"Content-Type": "text/plain; charset=UTF-8", "X-ClickHouse-Exception-Code": str(code)}
        self._answer(wire.status_of(code), f"{message}\n".encode(), headers)

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._head(status, {**headers, "Content-Length": str(len(body))})
        self.wfile.write(body)


def _summary(progress: Mapping[str, int]) -> str:
    names = ("read_rows", "read_bytes", "written_rows", "written_bytes", "total_rows_to_read", "result_rows", "result_bytes", "elapsed_ns")
    return json.dumps({name: str(progress.get(name, 0)) for name in names})
