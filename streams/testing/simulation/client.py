"""Who uses the simulated system: starts flows, signals, notes that come twice or to the wrong partition, garbage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from streams import topics
from streams.codec.avro import Codec, headers_of
from streams.log.ports import Outgoing
from streams.records import CommandName, Record, WorkflowCommand, derived_id, from_micros
from streams.testing.simulation.broker import SimulatedBroker
from streams.testing.simulation.loop import Scheduler
from streams.topics import home_of, partition_of

STEP_KINDS = ("here", "here", "there", "there", "out", "out", "wait", "silent", "here/refuse")


class Client:
    """Puts commands into the inboxes at moments drawn beforehand."""

    def __init__(self, scheduler: Scheduler, broker: SimulatedBroker, codec: Codec, partitions: int, flows: int) -> None:
        self._scheduler, self._broker, self._codec, self._partitions, self._flows = scheduler, broker, codec, partitions, flows
        self._count = 0
        self.started: set[str] = set()
        self.pending = 0  #: commands that will still come

    def begin(self, storm_us: int) -> None:
        """Plans everything."""
        random = self._scheduler.random.random
        for number in range(self._flows):
            at = int(random() * storm_us * 0.8)
            flow_id = f"flow-{number}"
            self._plan(at, partial(self._start, flow_id))
            for _ in range(int(random() * 3.5)):
                after = at + int(random() * 3_000_000)
                self._plan(after, partial(self._told, flow_id))
        for _ in range(int(random() * 2)):
            self._plan(int(random() * storm_us), self._garbage)

    def _plan(self, at: int, what: Callable[[], None]) -> None:
        self.pending += 1

        def happen() -> None:
            self.pending -= 1
            what()

        self._scheduler.at(at, happen)

    def _start(self, flow_id: str) -> None:
        random = self._scheduler.random.random
        plan = []
        for _ in range(1 + int(random() * 4)):
            kind = STEP_KINDS[int(random() * len(STEP_KINDS))]
            argument = {"there": f"pool-{int(random() * 4)}", "wait": str(int(10 ** (1 + 2.5 * random())))}.get(kind)
            plan.append(kind if argument is None else f"{kind}/{argument}")
        self.started.add(flow_id)
        record = self._command(flow_id, "start", {"plan": plan})
        for _ in range(1 + (random() < 0.2)):
            self.put(topics.COMMANDS, flow_id, record, astray=random() < 0.15)

    def _told(self, flow_id: str) -> None:
        random = self._scheduler.random.random
        kinds: tuple[CommandName, ...] = ("signal", "signal", "signal", "answer", "answer", "cancel")
        command = kinds[int(random() * len(kinds))]
        record = self._command(flow_id, command, {"amount": 1 + int(random() * 9)})
        if command != "answer":
            self.put(topics.COMMANDS, flow_id, record)  # a signal counts each time it comes
            return
        for _ in range(1 + (random() < 0.4)):
            self.put(topics.COMMANDS, flow_id, record, astray=random() < 0.3)

    def _garbage(self) -> None:
        random = self._scheduler.random.random
        partition = int(random() * self._partitions)
        key = b"flow-0" if random() < 0.5 else None
        value = b"garbage" if key is not None else self._codec.encode(self._command("flow-0", "signal", {"amount": 1}))
        record = Outgoing(key=key, value=value, headers=[], timestamp_ms=0)  # type: ignore[arg-type]
        self._broker.store(topics.COMMANDS, partition, [record])

    def _command(self, flow_id: str, command: CommandName, data: object) -> WorkflowCommand:
        self._count += 1
        return WorkflowCommand(
            id=derived_id("client", self._count), type=f"workflow.{command}", source="client", subject=flow_id,
            time=from_micros(self._scheduler.now_us), execution_id=flow_id, command=command, data=data,
        )  # fmt: skip

    def put(self, topic: str, key: str, record: Record, *, astray: bool = False) -> None:
        """Stores a record in the partition of its key; `astray`: perhaps in another one."""
        partition = partition_of(home_of(key), self._partitions)
        if astray:
            partition = (partition + 1) % self._partitions
        outgoing = Outgoing(key=key.encode(), value=self._codec.encode(record), headers=headers_of(record), timestamp_ms=0)
        self._broker.store(topic, partition, [outgoing])
