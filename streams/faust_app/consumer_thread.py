"""The thread of Faust's consumer: the Kafka client with an event loop of its own, so that its heartbeats go on while ours computes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchResult, OffsetResetStrategy
from aiokafka.errors import ConsumerStoppedError, NoError, RebalanceInProgressError
from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams import limits


def _as_parsed(_: Any, record: Any) -> Any:
    return record


#: How long partitions that nobody waits for are left alone, and how long a fetch waits meanwhile, milliseconds.
_UNHURRIED_MS = 50


def state_of(assignment: Any, partition: TP) -> Any:
    """What the client knows of a partition; None: it is not assigned."""
    place = TopicPartition(partition.topic, partition.partition)
    return assignment.state_value(place) if assignment is not None and place in assignment.tps else None


def shows_membership(request: Any, response: Any) -> bool:
    """Whether the group knows who has sent this: its clock of the session began anew when the request arrived."""
    if isinstance(request, SyncGroupRequest):
        return bool(response.error_code == NoError.errno)
    # Also while the group shares its partitions anew: it waits for those that it knows, far longer than a session lasts.
    return isinstance(request, HeartbeatRequest) and response.error_code in (NoError.errno, RebalanceInProgressError.errno)


def _settle(promise: asyncio.Future[Any], fetch: asyncio.Task[Any]) -> None:
    if promise.done():
        return  # whoever waited has gone
    if fetch.cancelled():
        promise.set_exception(ConsumerStoppedError())
    elif (error := fetch.exception()) is not None:
        promise.set_exception(error)
    else:
        promise.set_result(fetch.result())


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's thread of the client. Records stay as its parser made them: copying each into a `ConsumerRecord` costs twice the parsing."""

    def __init__(self, *args: Any, heard: Callable[[float], None], **kwargs: Any) -> None:
        self._heard = heard  # see `streams.faust_app.transport.Consumer`
        self.unhurried: frozenset[TP] = frozenset()  #: see `streams.faust_app.feed.Subscription`
        self._fetches: set[asyncio.Task[Any]] = set()
        self._paused = False
        super().__init__(*args, **kwargs)

    async def on_start(self) -> None:
        """Faust's hook, before anything is subscribed to."""
        await super().on_start()
        coordinator = self._ensure_consumer()._coordinator
        send = coordinator._send_req

        async def told(request: Any) -> Any:
            sent_s = monotonic()
            response = await send(request)
            if shows_membership(request, response):
                self._heard(sent_s)
            return response

        coordinator._send_req = told

    def _create_worker_consumer(self, transport: Any) -> Any:
        """Faust's hook. What nobody has committed is no record: of what is put back from the dead letters, or of a user's transactions."""
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        return consumer

    async def getmany(self, active_partitions: Any, timeout: float) -> Any:
        """Faust's hook: what the client has fetched, by partition.

        Begun in the thread as it is: the queue in which Faust lays all calls, and its tasks that wait there, cost more than a small fetch.
        """
        promise = asyncio.get_running_loop().create_future()
        self.thread_loop.call_soon_threadsafe(self._begin_fetch, promise, active_partitions, timeout)
        return await promise

    def _begin_fetch(self, promise: asyncio.Future[Any], active_partitions: Any, timeout: float) -> None:
        consumer = self._ensure_consumer()
        fetch = asyncio.ensure_future(
            self._fetch_records(consumer, active_partitions, timeout=timeout, max_records=consumer._max_poll_records)
        )
        self._fetches.add(fetch)
        fetch.add_done_callback(partial(self._end_fetch, promise))

    def _end_fetch(self, promise: asyncio.Future[Any], fetch: asyncio.Task[Any]) -> None:
        self._fetches.discard(fetch)
        promise.get_loop().call_soon_threadsafe(_settle, promise, fetch)

    async def _fetch_records(self, consumer: Any, active_partitions: Any, timeout: Any = None, max_records: Any = None) -> Any:
        """Faust's hook. What has arrived is handed out as it is; what arrives while it waits may come as `ConsumerRecord`s."""
        records: Mapping[Any, list[Any]] = {}
        if self.consumer.flow_active:
            with consumer._fetcher._subscriptions.fetch_context():  # for the group: we are alive
                records = self._at_hand(consumer._fetcher, active_partitions, max_records)
        if not records:
            records = await super()._fetch_records(consumer, active_partitions, timeout, max_records)
        if records and not self._paused and not self.unhurried.isdisjoint(records):
            self._pause(consumer._fetcher)
        return records

    @staticmethod
    def _at_hand(fetcher: Any, active_partitions: Any, max_records: int) -> dict[Any, list[Any]]:
        """What has arrived, a chunk of each partition: else one partition would come to its end before the next begins."""
        found: dict[Any, list[Any]] = {}
        if fetcher._subscriptions.reassignment_in_progress:
            return found
        room = max_records
        for partition, result in list(fetcher._records.items()):
            if room <= 0:
                break
            if not isinstance(result, FetchResult) or partition not in active_partitions:
                continue  # an error is for Faust's own way
            if result.has_more():
                result._partition_records._consumer_record = _as_parsed
            records = result.getall(min(limits.CHUNK_RECORDS_MAX, room))
            if result.has_more():
                fetcher._records.move_to_end(partition)
            else:
                del fetcher._records[partition]
                fetcher._notify(fetcher._wait_consume_future)
            if records:
                found[partition] = records
                room -= len(records)
        return found

    def _pause(self, fetcher: Any) -> None:
        """Leaves the partitions that nobody waits for alone for a moment: else each record there would end a fetch of its own."""
        assignment = fetcher._subscriptions.subscription.assignment
        states = [state for partition in self.unhurried if (state := state_of(assignment, partition)) is not None]
        for state in states:
            state.pause()
        self._paused = True
        usual_ms, fetcher._fetch_max_wait_ms = fetcher._fetch_max_wait_ms, _UNHURRIED_MS

        def resume() -> None:
            self._paused = False
            fetcher._fetch_max_wait_ms = usual_ms
            for state in states:
                state.resume()

        self.thread_loop.call_later(_UNHURRIED_MS / 1000, resume)

    async def go_to_beginning(self, partitions: Sequence[TP]) -> None:
        """Partitions that have a position go to their first record; does not wait until the broker has said where that is.

        Waiting would hold up a rebalance, in which nothing is fetched. What has no position yet is going there already.
        """
        fetcher = self._ensure_consumer()._fetcher
        assignment = fetcher._subscriptions.subscription.assignment
        for partition in partitions:
            state = state_of(assignment, partition)
            if state is not None and state.has_valid_position:
                state.await_reset(OffsetResetStrategy.EARLIEST)
                fetcher._records.pop(TopicPartition(partition.topic, partition.partition), None)
        fetcher._notify(fetcher._wait_consume_future)

    async def go_back(self, fetched: Mapping[TP, tuple[int, int]]) -> None:
        """What was fetched, [first, end) per partition, is fetched again, unless the client has gone elsewhere since."""
        fetcher = self._ensure_consumer()._fetcher
        assignment = fetcher._subscriptions.subscription.assignment
        for partition, (first, end) in fetched.items():
            state = state_of(assignment, partition)
            if state is not None and state.has_valid_position and state.position >= end:
                fetcher.seek_to(TopicPartition(partition.topic, partition.partition), first)
