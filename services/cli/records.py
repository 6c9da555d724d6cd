"""What the commands that show records share: following a topic, and a record as a line that a person reads at a glance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from services.cli import frame
from streams.bus import connect
from streams.codec.avro import to_json
from streams.durations import parse_duration_ms
from streams.records import CompositeEvent, Record, WorkflowTransition, iso

Filter = Annotated[str | None, typer.Option("--filter", help="CEL over the record's fields; only records for which it holds.")]
From = Annotated[str, typer.Option("--from", help="now, beginning, or a time (RFC 3339).", metavar="now|beginning|TIME")]
Count = Annotated[int | None, typer.Option("--count", min=1, help="End after so many records.")]
Timeout = Annotated[str | None, typer.Option("--timeout", help="End after this time: 250ms, 30s, 5m, PT5M.", metavar="DURATION")]

#: Characters of a payload that a line shows.
_DATA_CHARACTERS = 160


async def follow(
    topic: str,
    *,
    where: str | None,
    since: str,
    count: int | None,
    timeout: str | None,
    as_json: bool,
    line: Callable[[Record], str],
) -> None:
    """Prints the records of a topic as they come, until `count` or `timeout`.

    What could not be read is counted on stderr. A time that ended before the broker had told of all partitions is not taken for silence.
    """
    seconds = None if timeout is None else parse_duration_ms(timeout) / 1000
    unanswered = 0
    async with connect() as bus:
        subscription = bus.subscribe(topic, since=since, where=where)
        try:
            async with asyncio.timeout(seconds), subscription:
                frame.progress(f"following {topic} from {since}")
                seen = 0
                try:
                    async for record in subscription:
                        frame.write(frame.json_text(to_json(record)) if as_json else line(record))
                        seen += 1
                        if count is not None and seen >= count:
                            break
                finally:
                    unanswered = subscription.unanswered
        except TimeoutError:
            if seconds is None:
                raise
            frame.progress(f"ended after {timeout}{f'; Kafka had not answered for {unanswered} partition(s)' if unanswered else ''}")
        if subscription.skipped:
            frame.progress(f"{subscription.skipped} record(s) could not be read")


def say_all(found: Sequence[Record], *, as_json: bool) -> None:
    """Prints records: as one array, or a line each."""
    frame.say([to_json(record) for record in found], as_json=as_json, text=lambda: "\n".join(event_line(record) for record in found))


def event_line(record: Record) -> str:
    """time, type, subject, data; of a composite its explanation, of a transition its step."""
    if isinstance(record, CompositeEvent):
        return composite_line(record)
    severity = getattr(record, "severity", "info")
    parts = [iso(record.time), record.type]
    if severity != "info":
        parts.append(f"[{severity}]")
    if isinstance(record, WorkflowTransition) and record.step_id:
        parts.append(f"{record.step_id} #{record.attempt}" if record.attempt else record.step_id)
    if record.subject:
        parts.append(_printable(record.subject))
    if record.data not in ({}, None):
        parts.append(_short(record.data))
    return "  ".join(parts)


def composite_line(composite: CompositeEvent) -> str:
    """time, severity, rule, group, how many records, and why."""
    group = ", ".join(f"{name}={value}" for name, value in composite.group_key.items())
    state = " (retracted)" if composite.retracted else f" (revision {composite.revision})" if composite.revision else ""
    head = f"{iso(composite.time)}  [{composite.severity}]  {composite.rule_id}{state}"
    about = f"  {_printable(group)}" if group else ""
    return f"{head}{about}  {composite.event_count} events, confidence {composite.confidence:.2f}: {_printable(composite.explanation)}"


def _short(data: Any) -> str:
    text = _printable(frame.json_text(data))
    return text if len(text) <= _DATA_CHARACTERS else text[: _DATA_CHARACTERS - 1] + "…"


def _printable(text: str) -> str:
    """Without characters that could move a terminal's cursor or break the line: what is shown comes from anyone."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
