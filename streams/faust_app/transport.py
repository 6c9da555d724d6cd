"""The Faust transport `mplp-chunk://`: a whole fetch of a partition is one event, and only acknowledged prefixes are committed.

Faust spends about 200 µs and four asyncio tasks on each event, whatever the agent does; with 1,000 records per event that no
longer matters. The value of an event is a `Chunk`. It is acknowledged by `Consumer.acknowledge(chunk)` and by nothing else:
Faust's own acknowledgement (`Event.ack`, which it also calls for events that it skips during a rebalance and for agents that
raised) does not make an offset committable here.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from time import monotonic
from typing import Any

import structlog
import uvloop
from aiokafka.errors import ConsumerStoppedError, IllegalStateError
from faust import Schema
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streams import limits
from streams.faust_app.consumer_thread import ConsumerThread, state_of
from streams.faust_app.pacing import Pacing
from streams.faust_app.prefix import Chunk, CommitPrefix

_log = structlog.get_logger("transport")


#: How long the client waits for records before it is asked again, seconds.
_FETCH_TIMEOUT_S = 1.0
#: How old the broker's last word on the end of a partition may be, milliseconds.
_FRESH_MS = 4000


def _nobody(_: float) -> None:
    """Nobody wants to know."""


class Consumer(driver.Consumer):
    """Faust's aiokafka consumer with chunks for messages."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.prefix: CommitPrefix[TP] = CommitPrefix()
        self._fetched_end: dict[TP, int] = {}  # where the next fetch of a partition begins, once one is known
        self._begun: dict[TP, int] = {}  # where a session begins in which nothing was fetched yet
        self._in_hand: Counter[TP] = Counter()  # chunks that were fetched and are not delivered yet: Faust takes one after the other
        self._pacing = Pacing()
        self._less_to_do = asyncio.Event()  # a chunk was acknowledged, or is no longer ours
        self.unhurried: Callable[[], Collection[TP]] = frozenset  #: see `streams.faust_app.feed.Subscription`
        #: Called in the client's thread with the time (`monotonic`) at which something was sent whose answer shows that we are a member.
        self.heard: Callable[[float], None] = _nobody
        self.group_generation = -1  #: the group's own number of the assignment that is in force
        super().__init__(*args, **kwargs)

    @property
    def _client(self) -> ConsumerThread:
        assert isinstance(self._thread, ConsumerThread)
        return self._thread

    def _new_consumer_thread(self) -> Any:
        """Faust's hook: the thread of the client, on the fast event loop."""
        thread = ConsumerThread(
            self, heard=lambda sent_s: self.heard(sent_s), loop=self.loop, beacon=self.beacon, thread_loop=uvloop.new_event_loop()
        )
        thread._close_thread_loop_on_stop = True  # as for a loop that it made itself
        return thread

    async def verify_all_partitions_active(self) -> None:
        """Faust's hook: nothing. It would only log, from what the client's thread is changing; a partition without a position crashes it.

        What is stuck the worker finds by itself (`waiting_s`).
        """

    def acknowledge(self, chunk: Chunk) -> bool:
        """The chunk's output is acknowledged. False: it is of an earlier session and will be fetched again."""
        counts = self.prefix.acknowledge(TP(chunk.topic, chunk.partition), chunk)
        self._less_to_do.set()
        return counts

    def is_current(self, chunk: Chunk) -> bool:
        """Whether acknowledging the chunk would count."""
        return self.prefix.session(TP(chunk.topic, chunk.partition)) == chunk.session

    def place(self, partition: TP) -> tuple[int, bool] | None:
        """See `streams.faust_app.feed.Feed.place`.

        The client's own position says what it has fetched, which is further than what is handled; it counts only as long as nothing
        was delivered, and as it was before the fetch that goes on.
        """
        handled = self.prefix.handled(partition)
        if handled is None:
            handled = self._begun.get(partition)
        position = self._position(partition)
        if handled is None or position is None:
            return None
        return handled, position[1] and not self.prefix.waits(partition) and not self._in_hand[partition]

    def _position(self, partition: TP) -> tuple[int, bool] | None:
        """The next offset that the client fetches, and whether that is the end of the partition."""
        state = state_of(self._thread._ensure_consumer()._fetcher._subscriptions.subscription.assignment, partition)
        if state is None or not state.has_valid_position:
            return None
        # The broker answers a fetch at least every 1.5 s. What it said longer ago may be true no more: this process may have been stopped.
        fresh = state.timestamp is not None and time.time() * 1000 - state.timestamp < _FRESH_MS
        return int(state.position), fresh and state.highwater is not None and state.position >= state.highwater

    # --- sessions ---

    def _begin(self, partition: TP) -> None:
        self.prefix.begin(partition)
        self._less_to_do.set()
        self._fetched_end.pop(partition, None)
        self._begun.pop(partition, None)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Faust's hook: the partitions are given back (eager protocol: all of them)."""
        await super().on_partitions_revoked(revoked)
        for partition in revoked:
            self.prefix.forget(partition)
            self._fetched_end.pop(partition, None)
        self._less_to_do.set()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Faust's hook: these partitions are ours now."""
        for partition in set(self.prefix.partitions()) - assigned:
            self.prefix.forget(partition)
        for partition in assigned:
            self._begin(partition)
        self.group_generation = generation_id
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Faust goes back to the committed offsets: what is on its way is fetched again.

        The client leaves a partition of which nothing was committed yet where it is, behind what it has fetched: that would be lost.
        """
        await super().perform_seek()
        unsought = [partition for partition in self.prefix.partitions() if not self._committed_offset.get(partition)]
        if unsought:
            await self._client.call_thread(self._client.go_to_beginning, unsought)
        for partition in self.prefix.partitions():
            self._begin(partition)

    async def seek_again(self) -> None:
        """What was fetched while the flow was stopped is dropped, and to be fetched again.

        The client asks for the committed offsets of one partition after the other; if the group shares its partitions anew meanwhile, it
        seeks in one that is no longer assigned. Then the new assignment, which is on its way, begins with seeking everywhere.
        """
        try:
            await self.perform_seek()
        except (IllegalStateError, AssertionError) as error:
            _log.info("seek.overtaken", error=str(error))

    async def seek(self, partition: TP, offset: int) -> None:
        """Goes to an offset of a partition."""
        await super().seek(partition, offset)
        self._begin(partition)

    # --- fetching ---

    async def _drain_messages(self, fetcher: Any) -> None:
        """Faust's hook: hands out messages until the fetcher is stopped. Tasks are made only where handing out has to wait."""
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                await asyncio.sleep(0)
                async for partition, message in self.getmany(timeout=_FETCH_TIMEOUT_S):
                    if self._flows(partition):
                        await self.callback(message)
                    else:
                        await self.wait_first(self.callback(message), self.suspend_flow.wait())
                    self._read_offset[partition] = message.offset
        except (ConsumerStoppedError, asyncio.CancelledError):
            if not self.transport.app.should_stop:
                raise

    def _flows(self, partition: TP) -> bool:
        """Whether a message of the partition can be handed to its Faust agent without waiting."""
        topics: Any = self.app.topics
        return (
            self.app.flow_control.is_active()
            and not topics._tp_to_callback_lock.locked()
            and not any(channel.queue.full() for channel in topics._tp_index.get(partition, ()))
        )

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """One message per partition and fetch; see `driver.Consumer.getmany`."""
        if not await self._room():
            return
        pause_s = self._pacing.pause_s(monotonic())
        if pause_s:
            await asyncio.sleep(pause_s)
        sessions = {partition: self.prefix.session(partition) for partition in self.prefix.partitions()}
        self._note_beginnings()
        self._client.unhurried = frozenset(self.unhurried())
        records, _ = await self._wait_next_records(timeout)
        if records is None or self.should_stop:
            return
        self._pacing.fetched(sum(map(len, records.values())), monotonic())
        if not self.flow_active:
            await self.seek_again()
            return
        strangers = {
            partition: (fetched[0].offset, fetched[-1].offset + 1)
            for partition, fetched in records.items()
            if fetched and sessions.get(partition) != self.prefix.session(partition)
        }
        if strangers:  # a session began while the client fetched: they belong to it, if they were fetched after its beginning
            await self._client.call_thread(self._client.go_back, strangers)
        # All chunks are cut before any is handed out: what is then dropped leaves a hole that `deliver` sees.
        chunks = [(partition, chunk) for partition, fetched in records.items() for chunk in self._cut(partition, fetched, sessions)]
        self._in_hand = Counter(partition for partition, _ in chunks)
        try:
            for partition, chunk in chunks:
                delivered = self.flow_active and self.prefix.deliver(partition, chunk, monotonic())
                self._in_hand[partition] -= 1
                if delivered:
                    if (end := self._end(partition)) is not None:
                        self.app.monitor.track_tp_end_offset(partition, end)
                    yield partition, self._chunk_message(partition, chunk)
        finally:
            self._in_hand.clear()

    async def _room(self) -> bool:
        """Waits while as much is handed out as may be; False: it still is, and whoever asks has to look whether to go on."""
        try:
            async with asyncio.timeout(_FETCH_TIMEOUT_S):
                while self.prefix.load().full:
                    self._less_to_do.clear()
                    await self._less_to_do.wait()
                return True
        except TimeoutError:
            return False

    def _end(self, partition: TP) -> int | None:
        """The end of a partition as the broker said last; None also when it is not assigned any more, which the client knows first."""
        state = state_of(self._thread._ensure_consumer()._fetcher._subscriptions.subscription.assignment, partition)
        return None if state is None else state.highwater

    def _note_beginnings(self) -> None:
        """Between two fetches: where partitions stand of which nothing was delivered."""
        for partition in self.prefix.partitions():
            if self.prefix.handled(partition) is None and (position := self._position(partition)) is not None:
                self._begun[partition] = position[0]

    def _cut(self, partition: TP, fetched: list[Any], sessions: Mapping[TP, int | None]) -> list[Chunk]:
        session = sessions.get(partition)
        if session is None or session != self.prefix.session(partition) or not fetched:
            return []
        start = self._fetched_end.get(partition, fetched[0].offset)
        chunks = []
        for first in range(0, len(fetched), limits.CHUNK_RECORDS_MAX):
            records = tuple(fetched[first : first + limits.CHUNK_RECORDS_MAX])
            end = records[-1].offset + 1
            size = sum(len(record.value or b"") for record in records)
            chunks.append(Chunk(partition.topic, partition.partition, start, end, records, session, size))
            start = end
        self._fetched_end[partition] = start
        self.prefix.cut(partition, start)
        return chunks

    def _chunk_message(self, partition: TP, chunk: Chunk) -> ConsumerMessage:
        last = chunk.records[-1]
        value: Any = chunk  # Faust thinks of bytes; `PassThrough` hands it on as it is
        return ConsumerMessage(
            partition.topic, partition.partition, last.offset, last.timestamp / 1000, 0, [], None, value, None, 0, 0,
            partition, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    # --- committing ---

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Chunks know their beginnings; Faust's bookkeeping of gaps between single messages is not used."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in self.prefix.partitions() if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return self.prefix.committable(tp)


class Transport(driver.Transport):
    """Faust's aiokafka transport with our consumer."""

    Consumer = Consumer


class PassThrough(Schema[Any, Any]):
    """Hands the chunk to the Faust agent as it is."""

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """The key: none."""
        return message.key

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """The value: the chunk."""
        return message.value
