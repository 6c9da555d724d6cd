"""One simulated process: it joins the group and runs the real kernel on the partitions that the group gives it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from streams import topics
from streams.codec.avro import Codec
from streams.errors import Unavailable
from streams.log.fenced import FencedLog
from streams.log.lanes import Checkpointing
from streams.log.owned import OwnedPartitions
from streams.log.partition import PartitionRunner, Ports
from streams.log.ports import Outgoing
from streams.log.types import Send
from streams.records import Record, from_micros
from streams.testing.simulation.broker import SimulatedBroker
from streams.testing.simulation.group import Member, SimulatedGroup
from streams.testing.simulation.loop import ProcessLoop
from streams.testing.simulation.machines import CounterMachine, FlowMachine
from streams.testing.simulation.ports import SimulatedEffects, SimulatedInboxes, SimulatedLog, SimulatedSnapshots, SkewedClock
from streams.topics import TopicNames


class Watch:
    """What the world wants to know of a process; all methods may be left as they are."""

    def took_over(self, process: Process, partition: int, logs: Mapping[str, FencedLog], ends: Mapping[str, int]) -> None:
        """A runner has folded its logs and opened its inboxes, and has decided nothing."""

    def acknowledged(self, log: FencedLog, offset: int, count: int) -> None:
        """The kernel takes an append for acknowledged."""

    def effect(self, process: Process, effect: Send) -> None:
        """The kernel performs an effect."""

    def outside(self, record: Record) -> None:
        """A request reaches somebody outside."""

    def ended(self, process: Process, error: BaseException | None) -> None:
        """The process came to its end by itself."""


class WatchedLog(FencedLog):
    """The kernel's own log; the world is told what the kernel takes for acknowledged."""

    watch: Watch

    async def append_encoded(self, batch: Sequence[Outgoing]) -> int:
        """See `FencedLog.append_encoded`."""
        offset = await super().append_encoded(batch)
        self.watch.acknowledged(self, offset, len(batch))
        return offset


class Process:
    """A host: named for the group, with a loop, a memory and a clock of its own."""

    #: Switched by tests of the tests: what a process runs instead of the kernel's own classes.
    runner_class: type[PartitionRunner] = PartitionRunner
    log_class: type[WatchedLog] = WatchedLog

    def __init__(
        self, name: str, *, broker: SimulatedBroker, group: SimulatedGroup, codec: Codec, partitions: int, watch: Watch, skew_us: int,
        prepares: bool = False, resting: bool = False, checkpointing: Checkpointing | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.loop = ProcessLoop(broker.scheduler, name)  # type: ignore[abstract]  # it has what the kernel uses
        self.member = Member(name=name, loop=self.loop)
        self.effects: SimulatedEffects | None = None
        self.owned: OwnedPartitions | None = None
        self._broker, self._group, self._codec, self._partitions, self._watch = broker, group, codec, partitions, watch
        self._clock = SkewedClock(self.loop, skew_us)
        self._prepares = prepares
        self._resting = resting
        self._checkpointing = checkpointing or Checkpointing()
        self._logs: dict[int, dict[str, FencedLog]] = {}
        self._main: asyncio.Task[None] = self.loop.create_task(self._run())
        self._main.add_done_callback(self._done)

    def terminate(self) -> None:
        """SIGTERM: the process gives everything up in order and ends."""
        self._main.cancel()

    @property
    def runners(self) -> dict[int, PartitionRunner]:
        """The runners of this process, by partition."""
        return {} if self.owned is None else self.owned.runners

    def _done(self, task: asyncio.Task[None]) -> None:
        if not self._broker.scheduler.over:
            self._watch.ended(self, None if task.cancelled() else task.exception())

    async def _run(self) -> None:
        self.effects = SimulatedEffects(
            self._broker, self.loop, self._codec, self._partitions,
            on_effect=lambda effect: self._watch.effect(self, effect), outside=self._watch.outside,
        )  # fmt: skip
        owned = self.owned = OwnedPartitions(self._new_runner)
        membership = asyncio.create_task(self._take_part(owned))
        try:
            await asyncio.wait([membership, owned.failed, self.effects.failed], return_when=asyncio.FIRST_COMPLETED)
            for each in (owned.failed, self.effects.failed, membership):
                if each.done():
                    each.result()
        finally:
            membership.cancel()
            await asyncio.gather(membership, return_exceptions=True)
            await owned.stop_all()

    async def _take_part(self, owned: OwnedPartitions) -> None:
        while True:
            ours = await self._group.join(self.member)
            await owned.assigned(ours)
            await self.member.rejoin.wait()
            owned.revoked(list(owned.runners))

    def _new_runner(self, partition: int) -> PartitionRunner:
        logs = self._logs[partition] = {}

        def open_log(topic: str, number: int) -> FencedLog:
            port = SimulatedLog(self._broker, self.loop, topic, number)
            log = self.log_class(None, self._codec, topic=topic, partition=number, owner=self.name, port=port, clock=self._time)
            log.watch = self._watch
            logs[topic] = log
            return log

        def open_inboxes(inboxes: Sequence[str], number: int) -> SimulatedInboxes:
            return SimulatedInboxes(
                self._broker, self.loop, inboxes, number, lambda ends: self._watch.took_over(self, partition, dict(logs), ends)
            )

        ports = Ports(
            codec=self._codec,
            names=TopicNames(),
            clock=self._clock,
            effects=self.effects,  # type: ignore[arg-type]  # it is there before the group answers
            open_log=open_log,
            open_inboxes=open_inboxes,
            open_snapshots=lambda topic, number: SimulatedSnapshots(self._broker, self.loop, topic, number),
            prepare=self._prepare if self._prepares else None,
            checkpointing=self._checkpointing,
        )
        machines: list[Any] = [FlowMachine(), CounterMachine(resting=self._resting)]
        return self.runner_class(machines, ports, partition=partition, partitions=self._partitions)

    def _time(self) -> datetime:
        return from_micros(self._clock.now_us())

    async def _prepare(self, record: Record) -> Record:
        """As the orchestrator stores definitions before it decides: it waits, and another server may be away."""
        try:
            return await self._broker.ask(self.loop, lambda: record)
        except Exception as error:
            raise Unavailable("store.away", "The store cannot be reached.") from error


LOG_TOPICS = (topics.TRANSITIONS, topics.MESSAGES)
