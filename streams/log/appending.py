"""What becomes of decisions: appended in order, one append in flight per lane, and only then their effects performed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from streams import limits, topics
from streams.causation import depth_headers, depth_of
from streams.errors import InvalidInput, TooLarge
from streams.log.fold import Decided
from streams.log.inputs import Arrived
from streams.log.lanes import Lane, Ownership, Ports, Refold, Unwritable, Waiting
from streams.log.ports import Outgoing
from streams.log.rule import POSITIONED
from streams.log.types import REFOLD, Send
from streams.records import InputPosition, LogEvent, Position, Record, derived_id, from_micros
from streams.topics import home_of

#: Bytes of one append.
APPEND_BYTES_MAX = 4 * 1024 * 1024


class Appending:
    """Of one owned partition."""

    def __init__(self, owned: Ownership, ports: Ports, active: asyncio.Event) -> None:
        """`active` is cleared while a rebalance is under way."""
        self._owned = owned
        self._ports = ports
        self._active = active

    def enqueue(self, lane: Lane, waiting: Waiting) -> None:
        """Puts a decision in the queue of its lane."""
        lane.waiting.append(waiting)
        lane.idle.clear()
        lane.wake.set()

    async def flush(self, lane: Lane) -> None:
        """Appends what waits in the lane, until cancelled or the hold is lost (`UnknownOutcome`), or something can never be written."""
        while True:
            if not lane.waiting:
                lane.idle.set()
                lane.wake.clear()
                await lane.wake.wait()
            batch, records = self._next_batch(lane)
            if records:
                await self._append(lane, batch, records)
            acknowledged_us = self._ports.clock.now_us()
            for waiting in batch:
                lane.waiting.popleft()
                await self._after(lane, waiting, acknowledged_us)
            lane.advance(lane.log.next_offset)
            self._owned.work.set()
            if self._owned.refold:
                raise Refold("the partition is to be folded from its logs")

    @staticmethod
    async def _append(lane: Lane, batch: Sequence[Waiting], records: Sequence[Outgoing]) -> None:
        try:
            await lane.log.append_encoded(records)
        except TooLarge as error:  # of a batch that is one decision: it is atomic
            if len(batch) > 1 or batch[0].cause is None:
                raise
            raise Unwritable(batch[0].cause, error) from error

    def _next_batch(self, lane: Lane) -> tuple[list[Waiting], list[Outgoing]]:
        batch: list[Waiting] = []
        records: list[Outgoing] = []
        size = 0
        for waiting in lane.waiting:
            encoded = _encoded(lane, waiting)
            if waiting.position is not None:
                encoded.append(lane.log.outgoing(f"position/{self._owned.partition}", waiting.position))
            size += sum(len(record.value) + 512 for record in encoded)
            if batch and size > APPEND_BYTES_MAX:
                break
            batch.append(waiting)
            records.extend(encoded)
        return batch, records

    async def _after(self, lane: Lane, waiting: Waiting, acknowledged_us: int) -> None:
        """What follows the acknowledgement: local deliveries and effects."""
        for entry in waiting.decided.entries:
            for other in self._owned.lanes.values():
                if lane.machine.log in other.machine.source_logs and other.machine.concerns(entry.event):
                    self._hand_over(other, entry.event, entry.position, acknowledged_us, waiting.decided.depth)
        for send, position in waiting.decided.effects:
            await self._perform(_as_deep(send, waiting.decided.depth), position, acknowledged_us)
        if self._ports.observer is not None and waiting.position is None:
            self._ports.observer.decided(lane.machine.name, len(waiting.decided.entries), acknowledged_us - waiting.at_hand_us)

    async def _perform(self, send: Send, position: InputPosition | None, now_us: int) -> None:
        if send.topic == REFOLD:
            self._owned.refold = True
        elif self._owned.is_local(send, self._ports.names):
            reader = self._owned.readers[self._ports.names.physical(send.topic)]
            self._hand_over(self._owned.lanes[reader], send.record, position, now_us, depth_of(send.headers))
        else:
            await self._ports.effects.send(send)

    def _hand_over(self, lane: Lane, record: Record, position: InputPosition | None, now_us: int, depth: int) -> None:
        arrived = Arrived(lane=lane.machine.name, time_us=now_us, record=record, position=position, depth=depth)
        self._owned.inputs.sources[f"local/{lane.machine.name}"].queue.append(arrived)
        self._owned.work.set()

    async def resume_effects(self) -> None:
        """Performs again what the log shows as unanswered, now that everything that had arrived was decided."""
        resumable = self._owned.resumable
        for lane in self._owned.lanes.values() if resumable else ():
            for send in lane.fold.outstanding():
                if resumable.pop(send.record.id, None) is not None:
                    await self._perform(send, None, self._ports.clock.now_us())
        resumable.clear()

    async def tell_positions(self) -> None:
        """Appends a `Position` when positions moved without an event that tells them."""
        while True:
            await asyncio.sleep(limits.POSITION_INTERVAL_MS_MAX / 2000)
            for lane in self._owned.lanes.values():
                positions = lane.fold.moved_positions()
                if positions and self._active.is_set():
                    self.enqueue(lane, Waiting(Decided(entries=(), effects=()), 0, self._position(lane, positions)))

    def _position(self, lane: Lane, positions: tuple[InputPosition, ...]) -> Position:
        fold = lane.fold
        time_us = max(fold.time_us, self._ports.clock.now_us())
        record = Position(
            id=derived_id("position", fold.log, self._owned.partition, fold.epoch, fold.next_offset), type=POSITIONED, source="mplp/log",
            subject=f"{fold.log}/{self._owned.partition}", time=from_micros(time_us),
            log=fold.log, partition=self._owned.partition, epoch=fold.epoch, positions=positions,
        )  # fmt: skip
        fold.next_offset += 1
        fold.moved.clear()
        return record


def _encoded(lane: Lane, waiting: Waiting) -> list[Outgoing]:
    depth = depth_headers(waiting.decided.depth)
    try:
        return [lane.log.outgoing(home_of(_key_of(entry.event)), entry.event, depth) for entry in waiting.decided.entries]
    except (InvalidInput, TooLarge) as error:
        if waiting.cause is None:
            raise
        raise Unwritable(waiting.cause, error) from error


def _as_deep(send: Send, depth: int) -> Send:
    """An effect tells how deep the decision lies that it belongs to, unless it says so itself."""
    return send if not depth or depth_of(send.headers) else replace(send, headers=(*send.headers, *depth_headers(depth)))


def _key_of(event: LogEvent) -> str:
    """What the home of an event is taken from: its aggregate, or what a refusal is about."""
    return event.aggregate_id or event.subject or topics.SYSTEM_EVENTS
