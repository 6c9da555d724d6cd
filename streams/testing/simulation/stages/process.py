"""One simulated worker process: the real worker on simulated clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streams.codec.avro import Codec
from streams.faust_app.feed import Subscription
from streams.faust_app.ports import WorkerPorts
from streams.faust_app.worker import Worker
from streams.settings import Settings
from streams.testing.simulation.broker import SimulatedBroker
from streams.testing.simulation.loop import ProcessLoop
from streams.testing.simulation.ports import SimulatedLog
from streams.testing.simulation.stages.clients import SimulatedKafka
from streams.testing.simulation.stages.feed import SimulatedFeed
from streams.testing.simulation.stages.group import StageGroup
from streams.testing.simulation.stages.receivers import Called, SimulatedWebhooks
from streams.testing.simulation.stages.scenario import StageScenario
from streams.topics import COMPOSITES


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all processes of a run share."""

    broker: SimulatedBroker
    group: StageGroup
    codec: Codec
    settings: Settings
    partitions: Mapping[str, int]  #: of every topic
    scenario: StageScenario
    trouble: Callable[[], float]  #: chance that a call of a webhook goes wrong, at present
    called: Called


class StageProcess:
    """A worker: named for the group, with a loop and a memory of its own."""

    def __init__(self, name: str, around: Surroundings, ended: Callable[[StageProcess, BaseException | None], None]) -> None:
        self.name = name
        self.loop = ProcessLoop(around.broker.scheduler, name)  # type: ignore[abstract]  # it has what the stages use
        self.feeds: list[SimulatedFeed] = []
        self._around, self._tell_end = around, ended
        scenario = around.scenario
        kafka = SimulatedKafka(around.settings, around.broker, self.loop, around.partitions, batch_records=scenario.batch_records)
        ports = WorkerPorts(
            routes=False,
            open_feed=self._open_feed,
            open_composites=lambda partition: SimulatedLog(around.broker, self.loop, COMPOSITES, partition),
            open_webhooks=lambda _: SimulatedWebhooks(around.broker, self.loop, around.trouble, around.called),
            watermark_interval_s=scenario.watermark_s,
            checkpoint_interval_s=scenario.checkpoint_s,
            checkpoint_records=scenario.checkpoint_records,
        )
        self.worker = Worker(kafka, around.codec, name=name, static=True, ports=ports)
        self._main: asyncio.Task[None] = self.loop.create_task(self.worker.run())
        self._main.add_done_callback(self._done)

    def terminate(self) -> None:
        """SIGTERM: the process gives everything up in order and ends."""
        self._main.cancel()

    def _open_feed(self, subscription: Subscription) -> SimulatedFeed:
        feed = SimulatedFeed(self._around.broker, self.loop, self._around.group, self.name, subscription)
        self.feeds.append(feed)
        return feed

    def _done(self, task: asyncio.Task[None]) -> None:
        if not self._around.broker.scheduler.over:
            self._tell_end(self, None if task.cancelled() else task.exception())
