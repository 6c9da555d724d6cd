"""The host: takes part in a consumer group, and runs a `PartitionRunner` for every partition that the group gives it.

The group is used for ownership alone: its assignment of one topic (the first inbox of the first machine) says which
partitions are ours. A rebalance suspends all; a partition that comes back goes on with its epoch if nobody else appended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from streams.codec.avro import Codec
from streams.concurrency import cancelled
from streams.errors import NotFound
from streams.kafka import Kafka, cluster_metadata, start
from streams.log.effects import KafkaEffects
from streams.log.fenced import FencedLog
from streams.log.figures import in_sum
from streams.log.kafka_log import KafkaInboxes, SystemClock
from streams.log.kafka_snapshots import KafkaSnapshots, SnapshotClients
from streams.log.owned import OwnedPartitions
from streams.log.partition import Checkpointing, Observer, PartitionRunner, Ports, Prepare
from streams.log.types import Machine

_log = structlog.get_logger("log.host")

COMMIT_INTERVAL_S = 5.0


class Host(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """Runs machines on the partitions that a consumer group gives to this process.

    `name` must be unique among living hosts and stable over restarts: it is the static member of the group, so that a
    process that comes back within the session timeout gets its partitions back without a rebalance.
    """

    def __init__(
        self, kafka: Kafka, codec: Codec, machines: Sequence[Machine[Any]], *, name: str, group: str,
        prepare: Prepare | None = None, observer: Observer | None = None,
    ) -> None:  # fmt: skip
        self._kafka = kafka
        self._codec = codec
        self._machines = tuple(machines)
        self._name = name
        self._group = group
        self._prepare = prepare
        self._observer = observer
        self._topic = kafka.names.physical(machines[0].inboxes[0])
        self._partitions = 0
        self._effects: KafkaEffects | None = None
        self._snapshots = SnapshotClients(kafka)
        self._reassigned = asyncio.Event()
        self._owned: OwnedPartitions | None = None
        self.assigned = asyncio.Event()  #: set once the group has given us partitions (or none) for the first time

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions that we run now."""
        return tuple(sorted(self._runners))

    @property
    def _runners(self) -> dict[int, PartitionRunner]:
        return {} if self._owned is None else self._owned.runners

    def figures(self) -> dict[str, int]:
        """What our partitions hold, in sum: see `PartitionRunner.figures`; of `overdue_ms` the greatest."""
        return in_sum(runner.figures() for runner in self._runners.values())

    @property
    def ready(self) -> bool:
        """Whether every partition of ours is taken over and has decided its backlog: what had arrived by then."""
        return self.assigned.is_set() and all(runner.serving.is_set() for runner in self._runners.values())

    async def wait_ready(self) -> None:
        """Returns when `ready`."""
        await self._wait(lambda runner: runner.serving)

    async def wait_taken(self) -> None:
        """Returns when every partition of ours is taken over: it decides, and what waits in its inboxes has its turn."""
        await self._wait(lambda runner: runner.taken)

    async def _wait(self, event_of: Callable[[PartitionRunner], asyncio.Event]) -> None:
        await self.assigned.wait()
        while missing := [event for runner in self._runners.values() if not (event := event_of(runner)).is_set()]:
            # A partition that goes to somebody else meanwhile never serves here.
            self._reassigned.clear()
            events = [*missing, self._reassigned]
            waits = [asyncio.ensure_future(event.wait()) for event in events]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    async def run(self) -> None:
        """Serves until cancelled. Raises what makes going on impossible (a fenced instance, a defect of a machine)."""
        self._owned = OwnedPartitions(self._new_runner)
        self._effects = KafkaEffects(self._kafka, self._codec)
        await self._effects.start()
        consumer = self._kafka.new_consumer(
            group_id=self._group,
            group_instance_id=self._name,
            session_timeout_ms=self._kafka.settings.group_session_timeout_ms,
            heartbeat_interval_ms=max(300, self._kafka.settings.group_session_timeout_ms // 10),
            rebalance_timeout_ms=10_000,
        )
        try:
            await start(consumer)
            found = await cluster_metadata(consumer._client)
            self._partitions = len(found.partitions_for_topic(self._topic) or ())
            if not self._partitions:
                raise NotFound("topic.unknown", f"The topic {self._topic} does not exist.", advice="Run `mplp topics apply`.")
            self._consumer = consumer
            consumer.subscribe([self._topic], listener=self)
            await self._serve(consumer)
        finally:
            await self._owned.stop_all()
            with contextlib.suppress(KafkaError, asyncio.TimeoutError):
                await asyncio.wait_for(consumer.stop(), 5)
            await self._effects.stop()
            await self._snapshots.close()

    async def _serve(self, consumer: AIOKafkaConsumer) -> None:
        assert self._owned is not None
        assert self._effects is not None
        polling = asyncio.create_task(self._poll(consumer))
        try:
            done, _ = await asyncio.wait([polling, self._owned.failed, self._effects.failed], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await cancelled(polling)

    async def _poll(self, consumer: AIOKafkaConsumer) -> None:
        """Keeps the membership alive and tells lag tools how far we are; group errors leave from here."""
        loop = asyncio.get_running_loop()
        committed = loop.time()
        while True:
            await consumer.getmany(timeout_ms=1000)
            if loop.time() - committed > COMMIT_INTERVAL_S:
                committed = loop.time()
                offsets = {}
                for partition, runner in self._runners.items():
                    position = runner.positions().get(self._topic)
                    if position:
                        offsets[TopicPartition(self._topic, partition)] = position
                if offsets:
                    with contextlib.suppress(CommitFailedError, IllegalStateError):
                        await consumer.commit(offsets)

    # --- ConsumerRebalanceListener ----------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """A rebalance begins: nothing more is decided until it has ended."""
        if self._owned is not None:
            self._owned.revoked(tp.partition for tp in revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """A rebalance ended: gives up what went, goes on with what stayed, takes over what is new."""
        assert self._owned is not None
        ours = {tp.partition for tp in assigned}
        self._consumer.pause(*assigned)
        await self._owned.assigned(ours)
        self.assigned.set()
        self._reassigned.set()
        _log.info("host.assigned", partitions=sorted(ours))

    def _new_runner(self, partition: int) -> PartitionRunner:
        assert self._effects is not None
        ports = Ports(
            codec=self._codec,
            names=self._kafka.names,
            clock=SystemClock(),
            effects=self._effects,
            open_log=lambda topic, number: FencedLog(self._kafka, self._codec, topic=topic, partition=number, owner=self._name),
            open_inboxes=lambda inboxes, number: KafkaInboxes(self._kafka, inboxes, number),
            open_snapshots=lambda topic, number: KafkaSnapshots(self._snapshots, self._kafka.names.physical(topic), number),
            prepare=self._prepare,
            observer=self._observer,
            checkpointing=Checkpointing(
                records=self._kafka.settings.checkpoint_records,
                interval_ms=self._kafka.settings.checkpoint_interval_ms,
                window_us=self._kafka.settings.deduplication_window_ms * 1000,
                live_bytes=self._kafka.settings.live_state_bytes,
            ),
        )
        return PartitionRunner(self._machines, ports, partition=partition, partitions=self._partitions)
