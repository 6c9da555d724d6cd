"""The gateway as a client sees it: SQL over HTTP, problem details back as our errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import orjson

from streams.errors import BackboneError, Defect, Denied, InvalidInput, NotFound, Refused, TooLarge, Unavailable
from streams.settings import Settings

#: Longest time to an answer's next byte, seconds: queries are limited on the other side.
READ_TIMEOUT_S = 90.0

_BY_STATUS: Mapping[int, type[BackboneError]] = {
    400: InvalidInput,
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Refused,
    413: TooLarge,
    415: InvalidInput,
    422: InvalidInput,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


class Gateway:
    """A connection to the gateway, made when first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: httpx.AsyncClient | None = None

    async def query(self, sql: str, parameters: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """See `Bus.query`."""
        rows = await self._post("/v1/query", {"sql": sql, "parameters": dict(parameters or {})})
        if not isinstance(rows, list):
            raise Defect("gateway.answer", "The gateway answered a query with something else than rows.")
        return rows

    async def columns(self, sql: str, parameters: Mapping[str, Any] | None, *, stale: bool) -> dict[str, list[Any]]:
        """See `Bus.columns`."""
        body = {"sql": sql, "parameters": dict(parameters or {}), "format": "columns", "stale": stale}
        columns = await self._post("/v1/query", body)
        if not isinstance(columns, dict):
            raise Defect("gateway.answer", "The gateway answered a query with something else than columns.")
        return columns

    async def close(self) -> None:
        """Disconnects."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _headers(self) -> dict[str, str]:
        key = self._settings.api_key.get_secret_value()
        return {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}

    async def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        url = self._settings.http_url()
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=httpx.Timeout(READ_TIMEOUT_S, connect=5.0), trust_env=False)
        headers = {"content-type": "application/json"}
        if key := self._settings.api_key.get_secret_value():
            headers["authorization"] = f"Bearer {key}"
        try:
            response = await self._client.post(url + path, content=_json(body), headers=headers)
        except httpx.TransportError as error:
            raise Unavailable(
                "gateway.unreachable", f"The gateway at {url} does not answer ({type(error).__name__}).", advice="Start it with `mplp up`."
            ) from error
        if response.status_code >= 400:
            raise problem(response.status_code, response.content)
        try:
            return orjson.loads(response.content)
        except ValueError as error:
            raise Defect("gateway.answer", "The gateway's answer is not JSON.") from error


def problem(status: int, content: bytes) -> BackboneError:
    """The error that problem details (RFC 9457) describe, with their code, pointer and advice."""
    try:
        details = orjson.loads(content)
    except ValueError:
        details = {}
    if not isinstance(details, Mapping):
        details = {}
    code = str(details.get("code") or "gateway.failed")
    message = str(details.get("detail") or details.get("title") or f"The gateway answered with status {status}.")
    family = _BY_STATUS.get(status, InvalidInput if status < 500 else Defect)
    return family(code, message, pointer=details.get("pointer"), advice=details.get("advice"))


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError as error:
        raise InvalidInput("parameter.invalid", f"A parameter is no JSON: {error}", pointer="/parameters") from error
