"""SQL over the history as a client sees it: asked of the gateway, answered bit by bit, by rows, or as a frame."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import orjson

from streams.bus.gateway import problem
from streams.errors import BackboneError, Defect, InvalidInput, Refused, Unavailable
from streams.settings import Settings

#: Time to an answer's next byte beyond the query's own limit, seconds: it may wait for others, and for the sink.
PATIENCE_S = 30.0
CONNECT_S = 5.0
#: Longest silence of the gateway at long work, seconds: it tells how far it is, but one large table is read without a word in between.
SILENCE_S = 900.0
BEHIND_HEADER = "X-Mplp-Behind"

Frame = Literal["rows", "columns", "arrow", "pandas", "polars"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: a text, or the name of a saved query."""

    sql: str | None = None
    saved: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    format: str = "json"  #: as `POST /v1/query` knows it
    stale: bool = False  #: do not wait for the history to reach the topics' ends of now
    query_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def body(self) -> bytes:
        """As the gateway takes it. Raises `InvalidInput` (`parameter.invalid`)."""
        what = {"sql": self.sql} if self.saved is None else {"saved": self.saved}
        about = {"parameters": dict(self.parameters), "format": self.format, "stale": self.stale, "query_id": self.query_id}
        try:
            return orjson.dumps({**what, **about})
        except TypeError as error:
            raise InvalidInput("parameter.invalid", f"A parameter is no JSON: {error}", pointer="/parameters") from error


class Reply:
    """An answer that is coming."""

    def __init__(self, sql: Sql, question: Question, response: httpx.Response) -> None:
        self._sql, self._question, self._response = sql, question, response

    @property
    def behind(self) -> int:
        """Records that the history was behind the topics; 0 where that is not known."""
        text = self._response.headers.get(BEHIND_HEADER, "0")
        return int(text) if text.isdecimal() else 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the answer. Raises what ended the query in the middle, `Unavailable` (`query.broken`) if that cannot be told."""
        try:
            async for chunk in self._response.aiter_bytes():
                yield chunk
        except httpx.TransportError as error:
            raise await self._sql.why_broken(self._question) from error

    async def lines(self) -> AsyncIterator[bytes]:
        """The lines of an answer in a form that has lines. Raises as `chunks`."""
        held = b""
        async for chunk in self.chunks():
            *lines, held = (held + chunk).split(b"\n")
            for line in lines:
                yield line
        if held:
            yield held

    async def whole(self) -> bytes:
        """All of it. Raises as `chunks`."""
        return b"".join([chunk async for chunk in self.chunks()])


class Sql:
    """Connections to the gateway, made when first needed."""

    def __init__(self, settings: Settings, client: httpx.AsyncClient | None = None) -> None:
        """`client`: instead of one of its own; closed with it."""
        self._settings = settings
        self._client = client

    async def close(self) -> None:
        """Disconnects."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    @asynccontextmanager
    async def ask(self, question: Question) -> AsyncIterator[Reply]:
        """Asks; leaving before the end ends the query in the engine. Raises what the gateway says, `Unavailable` if it does not answer."""
        headers = {**self._headers(), "content-type": "application/json"}
        url = self._settings.http_url() + "/v1/query"
        try:
            async with self._connection().stream("POST", url, content=question.body(), headers=headers) as response:
                if response.is_error:
                    raise problem(response.status_code, await response.aread())
                yield Reply(self, question, response)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    async def get(self, path: str) -> Any:
        """What the gateway answers to a GET, as JSON. Raises as `ask`."""
        try:
            response = await self._connection().get(self._settings.http_url() + path, headers=self._headers())
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.is_error:
            raise problem(response.status_code, response.content)
        return orjson.loads(response.content)

    async def report(
        self, path: str, body: Mapping[str, Any], told: Callable[[Mapping[str, Any]], None] = lambda progress: None
    ) -> dict[str, Any]:
        """The report of long work of the gateway; meanwhile it is `told` how far it is, so that a silence tells. Raises as `ask`."""
        url, headers = self._settings.http_url() + path, {**self._headers(), "accept": "application/x-ndjson"}
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        try:
            async with self._connection().stream("POST", url, json=dict(body), headers=headers, timeout=timeout) as response:
                if response.is_error:
                    raise problem(response.status_code, await response.aread())
                async for line in response.aiter_lines():
                    step = orjson.loads(line)
                    if "report" in step:
                        return dict(step["report"])
                    if "problem" in step:
                        raise problem(int(step["problem"].get("status", 500)), orjson.dumps(step["problem"]))
                    told(step["progress"])
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        except ValueError as error:
            raise Defect("gateway.answer", "The gateway's answer is not what it should be.") from error
        raise Unavailable("gateway.unreachable", f"The gateway at {self._settings.http_url()} went away before it was done.")

    async def progress(self, query_id: str) -> dict[str, Any]:
        """How far a query is: `state`, `rows`, `rows_read`, `rows_total`, `elapsed_ms`, `error`. Raises `NotFound` (`query.unknown`)."""
        found: dict[str, Any] = await self.get(f"/v1/query/{query_id}")
        return found

    async def why_broken(self, question: Question) -> BackboneError:
        """The error of a query whose answer broke off."""
        broken = Unavailable("query.broken", "The answer broke off in the middle.", advice="Ask again.")
        try:
            found = (await self.progress(question.query_id)).get("error")
        except BackboneError:
            return broken
        if not isinstance(found, Mapping):
            return broken
        return Refused(str(found["code"]), str(found["message"]), pointer=found.get("pointer"), advice=found.get("advice"))

    def _connection(self) -> httpx.AsyncClient:
        if self._client is None:
            timeout = httpx.Timeout(self._settings.query_seconds + PATIENCE_S, connect=CONNECT_S)
            self._client = httpx.AsyncClient(timeout=timeout, trust_env=False)
        return self._client

    def _headers(self) -> dict[str, str]:
        key = self._settings.api_key.get_secret_value()
        return {"authorization": f"Bearer {key}"} if key else {}

    def _unreachable(self, error: Exception) -> Unavailable:
        url = self._settings.http_url()
        return Unavailable(
            "gateway.unreachable", f"The gateway at {url} does not answer ({type(error).__name__}).", advice="Start it with `mplp up`."
        )


def framed(content: bytes, frame: Frame) -> Any:
    """An answer as what was asked for. Raises `Refused` (`library.missing`), `Defect` (`gateway.answer`)."""
    try:
        match frame:
            case "rows" | "columns":
                return orjson.loads(content)
            case "arrow":
                return _arrow(content)
            case "pandas":
                _needs("pandas")
                return _arrow(content).to_pandas()
            case "polars":
                return _needs("polars").from_arrow(_arrow(content))
    except ValueError as error:
        raise Defect("gateway.answer", f"The gateway's answer is no {frame}.") from error


def _arrow(content: bytes) -> Any:
    _needs("pyarrow")
    ipc = _needs("pyarrow.ipc")
    return ipc.open_stream(content).read_all()


def _needs(library: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        name = library.partition(".")[0]
        raise Refused("library.missing", f"{name} is not installed.", advice=f"Install it: pip install {name} pyarrow.") from error
