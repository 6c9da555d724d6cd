"""Long work that the gateway does for `mplp history`: asked for over HTTP, its progress shown on stderr while it goes on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx
import orjson

from services.cli import frame
from streams.bus.gateway import problem
from streams.bus.sql import SILENCE_S, Sql
from streams.bus.validate import parse_time
from streams.durations import parse_duration_ms
from streams.errors import Defect, InvalidInput, Unavailable
from streams.records import iso, now
from streams.settings import Settings

#: Seconds between two lines of progress.
PROGRESS_S = 1.0
#: Longest wait for an answer that comes at once, seconds.
ANSWER_S = 120.0


async def asked(path: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the gateway answers to a GET. Raises what it says, `Unavailable` (`gateway.unreachable`) if it does not answer."""
    url, headers = _gateway()
    try:
        async with httpx.AsyncClient(timeout=httpx.Timeout(ANSWER_S, connect=5.0), trust_env=False) as client:
            response = await client.get(url + path, params=parameters, headers=headers)
    except httpx.TransportError as error:
        raise unreachable(url, error) from error
    if response.status_code >= 400:
        raise problem(response.status_code, response.content)
    try:
        return dict(orjson.loads(response.content))
    except ValueError as error:
        raise Defect("gateway.answer", "The gateway's answer is not what it should be.") from error


async def streamed(path: str) -> AsyncIterator[bytes]:
    """The bytes that the gateway answers a GET with, as they come. Raises as `asked`, also in the middle."""
    url, headers = _gateway()
    try:
        async with (
            httpx.AsyncClient(timeout=httpx.Timeout(SILENCE_S, connect=5.0), trust_env=False) as client,
            client.stream("GET", url + path, headers=headers) as response,
        ):
            if response.status_code >= 400:
                raise problem(response.status_code, await response.aread())
            async for chunk in response.aiter_bytes():
                yield chunk
    except httpx.TransportError as error:
        raise unreachable(url, error) from error


def _gateway() -> tuple[str, dict[str, str]]:
    """The gateway's address, and the headers that every request needs."""
    settings = Settings()
    key = settings.api_key.get_secret_value()
    return settings.http_url(), {"authorization": f"Bearer {key}"} if key else {}


def unreachable(url: str, error: Exception) -> Unavailable:
    """That the gateway does not answer."""
    return Unavailable(
        "gateway.unreachable", f"The gateway at {url} does not answer ({type(error).__name__}).", advice="Start it with `mplp up`."
    )


async def report_of(path: str, body: Mapping[str, Any], line: Callable[[Mapping[str, Any]], str]) -> dict[str, Any]:
    """The report of work that the gateway does; `line` says a step of progress in words. Raises as `Sql.report`."""
    said, said_s = "", 0.0

    def told(progress: Mapping[str, Any]) -> None:
        nonlocal said, said_s
        if (words := line(progress)) != said and time.monotonic() - said_s >= PROGRESS_S:
            said, said_s = words, time.monotonic()
            frame.progress(words)

    gateway = Sql(Settings())
    try:
        return await gateway.report(path, body, told)
    finally:
        await gateway.close()


def offset_or_time(text: str | None) -> int | str | None:
    """An offset as a number; a time, or a duration back from now, as a time. Raises `InvalidInput` (`time.invalid`)."""
    if text is None:
        return None
    if text.isascii() and text.isdecimal():
        return int(text)
    return iso(instant(text))


def instant(text: str) -> datetime:
    """A time, or a duration back from now. Raises `InvalidInput` (`time.invalid`)."""
    try:
        return parse_time(text)
    except InvalidInput:
        try:
            return now() - timedelta(milliseconds=parse_duration_ms(text))
        except (InvalidInput, OverflowError):
            raise InvalidInput(
                "time.invalid", f"{text!r} is neither an offset, a time (2026-01-31T12:00:00Z) nor a duration (24h)."
            ) from None
