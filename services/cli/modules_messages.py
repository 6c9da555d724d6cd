"""`mplp modules send|broadcast|subscribe`: messages between modules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import orjson
import typer

from services.cli import frame, records
from services.cli.parameters import object_of
from streams.bus import Bus, connect
from streams.bus.messages import HUB, receipt
from streams.codec.avro import to_json
from streams.durations import parse_duration_ms
from streams.errors import InvalidInput, Unavailable
from streams.records import ModuleMessage
from streams.topics import REQUESTS

Timeout = Annotated[str, typer.Option(help="How long to wait: 500ms, 30s, 5m.")]


@frame.command
async def send(
    module: Annotated[str, typer.Argument(help="Name of a module.")],
    operation: Annotated[str, typer.Argument(help="Name of one of its operations.")],
    parameters: Annotated[str, typer.Option(help="JSON object, @FILE, or @- for stdin.")] = "{}",
    timeout: Timeout = "30s",
    retries: Annotated[int, typer.Option(help="How often it is tried again after an error that may pass.")] = 0,
    as_json: frame.JsonFlag = False,
) -> None:
    """Send a message to a module and print its answer; the module may be down until the time is over. All of it is on record."""
    given = object_of(parameters)
    async with connect() as bus:
        answer = await bus.send_message(module, operation, given, timeout=parse_duration_ms(timeout) / 1000, retries=retries)
    frame.say(answer, as_json=as_json, text=lambda: frame.json_text(answer["result"], indent=True))


@frame.command
async def broadcast(
    type: Annotated[str, typer.Argument(help="What the message is: dotted, past tense.")],
    data: Annotated[str, typer.Option(help="Any JSON value.")] = "{}",
    source: Annotated[str, typer.Option(help="Who sends it.")] = "cli",
    timeout: Timeout = "30s",
    wait: Annotated[bool, typer.Option(help="Wait until all have received it, or the time is over.")] = True,
    as_json: frame.JsonFlag = False,
) -> None:
    """Send a message to all who subscribed to its type, and print who has received it. Exit code 1 if somebody has not."""
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("data.invalid", f"The data is no JSON: {error}") from error
    async with connect() as bus:
        report = await bus.broadcast(type, content, source=source, timeout=parse_duration_ms(timeout) / 1000, wait=wait)
    missing = f"; missing: {', '.join(report['missing'])}" if report["missing"] else ""
    told = f"{report['broadcastId']}: received by {len(report['received'])} of {report['subscribers']}{missing}"
    frame.say(report, as_json=as_json, text=told)
    if wait and report["missing"]:
        raise typer.Exit(frame.EXIT_REFUSED)


@frame.command
async def subscribe(
    subscriber: Annotated[str, typer.Argument(help="Who subscribes: a name that stays the same.")],
    types: Annotated[list[str] | None, typer.Option("--type", help="Glob of message types; may be repeated. Default: all.")] = None,
    source: Annotated[str | None, typer.Option(help="Glob of who sends.")] = None,
    count: Annotated[int | None, typer.Option(help="End after so many messages.")] = None,
    timeout: records.Timeout = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Print broadcasts as they come, one a line; what came while nobody listened comes first, if it may still be delivered.

    Ends after --count messages or --timeout, with exit code 0.
    """
    seconds = None if timeout is None else parse_duration_ms(timeout) / 1000
    listening = asyncio.Event()

    def listen() -> None:
        frame.progress(f"listening as {subscriber}")
        listening.set()

    try:
        async with asyncio.timeout(seconds), connect() as bus:
            await _print_messages(bus, subscriber, bus.messages(subscriber, types or ["**"], source=source, ready=listen), count, as_json)
    except TimeoutError:
        if seconds is None:
            raise
        if not listening.is_set():  # which is not the silence of those who send
            raise Unavailable("module.silent", f"The hub did not answer within {timeout}.", advice="See `mplp status`.") from None
        frame.progress(f"ended after {timeout}")


async def _print_messages(bus: Bus, subscriber: str, messages: AsyncIterator[ModuleMessage], count: int | None, as_json: bool) -> None:
    seen = 0
    async for message in messages:
        frame.write(frame.json_text(to_json(message)) if as_json else f"{message.type}  {frame.json_text(message.data)}")
        seen += 1
        if count is not None and seen >= count:
            # Asking for one more would acknowledge it; so does this.
            await bus.send(REQUESTS, HUB, receipt(message, subscriber))
            return
