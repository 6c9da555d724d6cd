"""From a request to chDB: settings, sessions, parameters, and inserts whose data came in the body."""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chdb

#: Parameters of a URL that are no settings.
RESERVED = frozenset(
    {
        "query", "database", "session_id", "session_timeout", "session_check", "close_session", "query_id", "user", "password", "quota_key",
        "default_format", "compress", "decompress", "buffer_size", "wait_end_of_query", "client_protocol_version", "role", "stacktrace",
        "enable_http_compression", "send_progress_in_http_headers", "http_headers_progress_interval_ms",
        "cancel_http_readonly_queries_on_client_close",
    }
)  # fmt: skip
#: Formats whose answer can be sent block by block.
STREAMED = frozenset({"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow", "JSONCompactEachRow"})

_LEAD = r"\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*)*"
_INSERT = re.compile(_LEAD + r"INSERT\b", re.IGNORECASE | re.DOTALL)
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*", re.IGNORECASE)
_TRAILING_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*\Z", re.IGNORECASE)
_ANSWERS = re.compile(_LEAD + r"\(*\s*(SELECT|WITH|SHOW|DESCRIBE|DESC|EXPLAIN|EXISTS|CHECK|KILL|FROM)\b", re.IGNORECASE | re.DOTALL)
_READS = re.compile(_LEAD + r"\(*\s*(SELECT|WITH|FROM)\b", re.IGNORECASE | re.DOTALL)
_KILL_BY_ID = re.compile(r"\bquery_id\s*=\s*'([^']*)'", re.IGNORECASE)
_KILL = re.compile(_LEAD + r"KILL\s+QUERY\b", re.IGNORECASE | re.DOTALL)
_INPUT = re.compile(r"\binput\s*\(", re.IGNORECASE)
_REPLICATED = re.compile(r"\bReplicated(\w*MergeTree)\s*(?:\((?:\s*'[^']*'\s*,\s*'[^']*'\s*,?)?\s*([^()]*)\))?")


#: Changes one node of a cluster and no other, unless it is sent to all of them.
_OF_ONE_NODE = re.compile(
    r"\s*(?:SYSTEM\s+(?:STOP|START)\s+TTL\s+MERGES|KILL\s+MUTATION|ALTER\s+TABLE\s+\S+\s+MODIFY\s+SETTING"
    r"|(?:CREATE|DROP)\s+TABLE\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?+\S+|EXCHANGE\s+TABLES\s+\S+\s+AND\s+\S+)(?!\S*\s+ON\s+CLUSTER)(?=\s|$)",
    re.IGNORECASE,
)
#: File in the folder: while it is there, another node of the cluster does not answer.
REPLICA_DOWN = "replica-down"
QUIET = "null_status_on_timeout"


class EngineError(Exception):
    """What the engine, or this server in its place, says of a statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request."""

    query: bytes  #: from the URL or the form; empty: the statement is the body
    body: bytes
    database: str
    settings: Mapping[str, str]
    parameters: Mapping[str, str]
    session_id: str
    default_format: str
    query_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What chDB is asked."""

    text: str
    format: str
    data: bytes | None = None  #: of an insert
    data_format: str = ""

    @property
    def answers(self) -> bool:
        """Whether it has an answer, be it without rows."""
        return bool(_ANSWERS.match(self.text))

    @property
    def streams(self) -> bool:
        """Whether its answer can be sent block by block."""
        return bool(_READS.match(self.text)) and self.format in STREAMED


def statement_of(request: Request, cluster: str) -> Statement:
    """Takes statement and data apart."""
    query, body = request.query, request.body
    if not query:
        head = body[: 2**20].decode(errors="replace")
        found = _FORMAT.search(head) if _INSERT.match(head) else None
        if found is None or found[1].lower() == "values":
            query, body = body, b""
        else:
            start = len(head[: found.start(1)].encode()) + len(found[1])
            while body[start : start + 1] in (b" ", b"\t", b"\r"):
                start += 1
            start += body[start : start + 1] == b"\n"
            query, body = body[: len(head[: found.end(1)].encode())], body[start:]
    text = _of_one_node(query.decode(), cluster)
    found = _TRAILING_FORMAT.search(text)
    if _INSERT.match(text) and found is not None and found[1].lower() != "values":
        return Statement(text=text[: found.start()], format="TabSeparated", data=body, data_format=found[1])
    if body:
        text = f"{text}\n{body.decode()}"
        found = _TRAILING_FORMAT.search(text)
    return Statement(text=text, format=found[1] if found else request.default_format or "TabSeparated")


def _of_one_node(text: str, cluster: str) -> str:
    """The statement of a replicated cluster as that of one node."""
    if not cluster:
        return text
    if re.match(r"\s*SYSTEM\s+SYNC\s+REPLICA\b", text, flags=re.IGNORECASE):
        return "SELECT 1 WHERE 0"  # one node is never behind itself
    text = re.sub(rf"\bON\s+CLUSTER\s+(['`\"]?){re.escape(cluster)}\1", "", text, flags=re.IGNORECASE)
    text = _REPLICATED.sub(lambda found: f"{found[1]}({(found[2] or '').strip()})", text)
    return re.sub(r"(?<!non_)\breplicated_deduplication_window\b", "non_replicated_deduplication_window", text)


@dataclass(slots=True)
class _Session:
    handle: Any
    lock: threading.Lock = field(default_factory=threading.Lock)


class Engine:
    """One chDB folder. Safe to use from many threads."""

    def __init__(self, folder: Path, *, cluster: str = "") -> None:
        self._path = f"{folder}?max_server_memory_usage={2 * 1024**3}&max_threads=2"
        self._cluster, self._replica_down = cluster, folder / REPLICA_DOWN
        self._sessions: dict[str, _Session] = {}
        self._guard = threading.Lock()
        self._markers: dict[str, str] = {}  #: query id → comment in the text of what runs
        self._keeper = chdb.connect(self._path)  # an engine without a connection would shut down in between

    @contextlib.contextmanager
    def _handle(self, session_id: str) -> Iterator[Any]:
        if not session_id:
            handle = chdb.connect(self._path)
            try:
                yield handle
            finally:
                handle.close()
            return
        with self._guard:
            session = self._sessions.setdefault(session_id, _Session(None))
        if not session.lock.acquire(blocking=False):
            raise EngineError(f"Code: 373. DB::Exception: Session {session_id} is locked by a concurrent client. (SESSION_IS_LOCKED)")
        try:
            session.handle = session.handle or chdb.connect(self._path)
            yield session.handle
        finally:
            session.lock.release()

    def statement(self, request: Request) -> Statement:
        """What a request asks. Raises `EngineError` for what would reach one node of the cluster alone."""
        if self._cluster and (found := _OF_ONE_NODE.match(request.query.decode(errors="replace") or request.body.decode(errors="replace"))):
            raise EngineError(f"Code: 36. DB::Exception: {' '.join(found[0].split())} reaches this node alone. (BAD_ARGUMENTS)")
        return statement_of(request, self._cluster)

    @contextlib.contextmanager
    def running(self, request: Request, statement: Statement, on_progress: Any = None) -> Iterator[Iterator[bytes]]:
        """Runs it; what is given yields the answer. Raises `EngineError`, also while it yields."""
        marker = f"http-{uuid.uuid4().hex}"
        with self._guard:
            self._markers[request.query_id] = marker
        try:
            with self._handle(request.session_id) as handle:
                try:
                    self._prepare(handle, request)
                    if on_progress is not None:
                        handle.set_progress_callback(on_progress)
                    yield self._run(handle, statement, marker, request.parameters)
                    self._wait_for_the_others(request)
                except (RuntimeError, chdb.ChdbError) as error:
                    raise EngineError(_message_of(error)) from error
        finally:
            with self._guard:
                self._markers.pop(request.query_id, None)

    def _wait_for_the_others(self, request: Request) -> None:
        """What a statement says that is done here, and cannot be done by a node that is down."""
        text = (request.query + request.body).decode(errors="replace")
        if not self._replica_down.exists() or _READS.match(text):
            return
        if re.search(r"\bON\s+CLUSTER\b", text, re.IGNORECASE) and request.settings.get("distributed_ddl_output_mode") != QUIET:
            raise EngineError("Code: 159. DB::Exception: Distributed DDL task is not finished on 1 of 2 hosts. (TIMEOUT_EXCEEDED)")
        if re.search(r"\bmutations_sync\s*=\s*2\b", text):
            raise EngineError("Code: 341. DB::Exception: Mutation is not finished: some replicas are inactive right now. (UNFINISHED)")

    def _prepare(self, handle: Any, request: Request) -> None:
        if request.database:
            handle.query(f"USE `{request.database}`")
        # Read-only goes last: nothing can be set after it.
        for name in sorted(request.settings, key=lambda name: name == "readonly"):
            if not name.isidentifier():
                raise EngineError(f"Code: 115. DB::Exception: Unknown setting '{name}'. (UNKNOWN_SETTING)")
            handle.query(f"SET {name} = {_quoted(request.settings[name])}")

    def _run(self, handle: Any, statement: Statement, marker: str, parameters: Mapping[str, str]) -> Iterator[bytes]:
        text = f"/* {marker} */ {self._by_marker(statement.text)}"
        if statement.data is not None:
            if _INPUT.search(text) is None:
                inserter = handle.send_insert(text, statement.data_format)
                inserter.append(statement.data)
                inserter.finish()
                return
            with tempfile.NamedTemporaryFile(suffix=".body") as file:
                file.write(statement.data)
                file.flush()
                # The same with the body as a file: chDB has no `input` but that of its own caller.
                source = f"file({_quoted(file.name)}, {statement.data_format}, "
                handle.query(_INPUT.sub(lambda _: source, text, count=1), "TabSeparated", params=dict(parameters))
            return
        if statement.streams:
            with handle.send_query(text, statement.format, params=dict(parameters)) as stream:
                for chunk in stream:
                    yield chunk.bytes()
            return
        answer = handle.query(text, statement.format, params=dict(parameters)).bytes()
        if answer:
            yield answer

    def _by_marker(self, text: str) -> str:
        """`KILL QUERY WHERE query_id = …`: chDB gives ids of its own, so a query is found by the comment in its text."""
        if not _KILL.match(text):
            return text

        def condition(found: re.Match[str]) -> str:
            marker = self._markers.get(found[1], "none")
            return f"position(query, concat('{marker[:8]}', '{marker[8:]}')) > 0"

        return _KILL_BY_ID.sub(condition, text)

    def kill(self, query_id: str) -> None:
        """Ends a query whose client has gone."""
        with self._handle("") as handle:
            handle.query(self._by_marker(f"KILL QUERY WHERE query_id = '{query_id}' ASYNC"))


def _message_of(error: Exception) -> str:
    text = str(error)
    start = text.find("Code: ")
    return text[start:] if start > 0 else text


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
