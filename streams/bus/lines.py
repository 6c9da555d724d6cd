"""NDJSON in bulk: bytes in, events published, bad lines named by number. The input may be endless; only a slice is in memory.

A line that is refused stops nothing: the good ones are kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from streams import topics
from streams.bus.outgoing import Outgoing
from streams.bus.publisher import Publisher, refuse_unwritable, takes_events
from streams.bus.validate import LINE_BYTES_MAX
from streams.errors import BackboneError, InvalidInput, TooLarge

#: Records that are sent together, and bytes of them: a slice is acknowledged before the next one is read.
SLICE_RECORDS = 5000
SLICE_BYTES = 16 * 1024 * 1024
#: Refusals that a report names; beyond it they are only counted.
REFUSALS_MAX = 10_000

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LineSplitter:
    """Cuts pieces of a byte stream into numbered lines (from 1). A line that is too long is given as None, and not kept in memory."""

    def __init__(self, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._most = line_bytes_max
        self._rest = bytearray()
        self._overflowing = False
        self._number = 0

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes | None]]:
        """The lines that `piece` completes, without their line feeds."""
        *complete, rest = piece.split(b"\n")
        for line in complete:
            yield self._line(bytes(self._rest) + line if self._rest else line)
        self._keep(rest)

    def end(self) -> Iterator[tuple[int, bytes | None]]:
        """The last line, if it had no line feed."""
        if self._rest or self._overflowing:
            yield self._line(bytes(self._rest))

    def _keep(self, rest: bytes) -> None:
        if self._overflowing or len(self._rest) + len(rest) > self._most:
            self._overflowing = True
            self._rest.clear()
        else:
            self._rest += rest

    def _line(self, line: bytes) -> tuple[int, bytes | None]:
        self._number += 1
        too_long = self._overflowing or len(line) > self._most
        self._rest.clear()
        self._overflowing = False
        if self._number == 1 and line.startswith(_BYTE_ORDER_MARK):
            line = line[len(_BYTE_ORDER_MARK) :]
        return self._number, None if too_long else line


@dataclass(slots=True)
class Report:
    """What became of the lines."""

    accepted: int = 0  #: acknowledged by the broker
    rejected: list[dict[str, Any]] = field(default_factory=list)  #: `{"line", "code", "message", "pointer"?}`, the first `REFUSALS_MAX`
    rejected_count: int = 0

    def reject(self, line: int, error: BackboneError) -> None:
        """Notes a refused line."""
        self.rejected_count += 1
        if len(self.rejected) < REFUSALS_MAX:
            entry: dict[str, Any] = {"line": line, "code": error.code, "message": error.message}
            if error.pointer:
                entry["pointer"] = error.pointer
            self.rejected.append(entry)

    def to_dict(self) -> dict[str, Any]:
        """`{"accepted", "rejected"}`, and `rejected_count` where not all refusals are listed."""
        found: dict[str, Any] = {"accepted": self.accepted, "rejected": self.rejected}
        if self.rejected_count > len(self.rejected):
            found["rejected_count"] = self.rejected_count
        return found


async def produce_lines(
    publisher: Publisher, pieces: AsyncIterable[bytes], topic: str = topics.SYSTEM_EVENTS, report: Report | None = None
) -> Report:
    """Publishes the events of an NDJSON stream. Blank lines are ignored.

    `report` is filled on the way, so that it is right also when this raises: `NotFound` (`topic.unknown`), `InvalidInput` (the topic
    takes no system events), `Unavailable`.
    """
    report = report if report is not None else Report()
    refuse_unwritable(topic)
    if not takes_events(topic):
        raise InvalidInput("record.unexpected", f"{topic} takes no system events.")
    partitions = await publisher.partitions(topic)
    splitter = LineSplitter()
    ready: list[Outgoing] = []
    size = 0
    async for piece in pieces:
        for number, line in splitter.feed(piece):
            size += _prepare(publisher, partitions, number, line, ready, report)
            if len(ready) >= SLICE_RECORDS or size >= SLICE_BYTES:
                size = await _send(publisher, topic, ready, report)
        # What has come is sent before waiting for more: a slow source is not held back.
        size = await _send(publisher, topic, ready, report)
    for number, line in splitter.end():
        _prepare(publisher, partitions, number, line, ready, report)
    await _send(publisher, topic, ready, report)
    return report


def _prepare(publisher: Publisher, partitions: int, number: int, line: bytes | None, ready: list[Outgoing], report: Report) -> int:
    """Checks and encodes a line; the bytes it takes."""
    try:
        if line is None:
            raise TooLarge("payload.too-large", f"The line has more than {LINE_BYTES_MAX:,} bytes.")
        if not line or line.isspace():
            return 0
        outgoing = publisher.prepare(line, partitions)
    except BackboneError as error:
        report.reject(number, error)
        return 0
    ready.append(outgoing)
    return len(outgoing.value or b"")


async def _send(publisher: Publisher, topic: str, ready: list[Outgoing], report: Report) -> int:
    if ready:
        await publisher.send(topic, ready)
        report.accepted += len(ready)
        ready.clear()
    return 0
