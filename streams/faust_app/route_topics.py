"""A route to a topic, on one source partition: many records at a time, in the order of the log, once each as far as can be known.

The order of keys is that of the batches. Only one batch is under way, and the next is not sent before the broker has it; so nothing is
parked here: what cannot be delivered is refused at once, and a topic that is away holds up this route and nobody else.
A successor looks at what the destination has since the last checkpoint, and leaves that out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import TypeAlias

import structlog

from streams.bus.bodies import Bodies, bodies_of, joined
from streams.bus.rendering import Rendered
from streams.errors import BackboneError, Fault, NotFound, TooLarge
from streams.faust_app.route_ports import World
from streams.faust_app.route_runner import Place, Runner, Source
from streams.records import Json, to_micros
from streams.routing.orders import Orders
from streams.routing.plan import Plan
from streams.routing.recipes import Made, Rejected
from streams.routing.routes import ToTopic
from streams.routing.tasks import Task

#: Records that wait to be sent, and bytes of them, beyond which the log waits.
_TASKS_MAX = 8000
_BYTES_MAX = 32 * 1024 * 1024
#: Records beyond which no more are sent together.
_TOGETHER_MIN = 1000
#: Records encoded before the event loop gets its turn.
_SLICE = 500
#: Dead letters of different keys that are written at a time.
_LETTERS_MAX = 32
#: How far apart clocks may be, milliseconds, when a successor looks for what was delivered.
_SKEW_MS = 60_000
#: How much earlier than now, by its own clock, what a process writes may be dated, milliseconds.
_WRITTEN_MS = 1000
_PAUSE_S = 1.0

#: Offsets of what was read, and what is made of it.
Written: TypeAlias = tuple[list[int], Bodies]

_log = structlog.get_logger("routes")


class TopicRunner(Runner):
    """See the module. `state` as `dump` left it (also one of another kind of runner), `since_ms`: from when on the
    destination may have something that is not settled in it, Unix time (None: it has nothing)."""

    def __init__(
        self, world: World, plan: Plan, place: Place, source: Source, failed: Callable[[BaseException], None], *,
        position: int, state: Json, since_ms: int | None,
    ) -> None:  # fmt: skip
        super().__init__(world, plan, place, source, failed)
        #: Of a dump with keys that were not settled: up to here only they are left to do, each from its offset on.
        self._left_to = 0
        self._left: dict[bytes, int] = {}
        if state is not None:
            position = int(state["position"])
            self._left = {bytes.fromhex(key): int(entry[0]) for key, entry in state["keys"].items()}
            self._left_to = position if self._left else 0
            position = min([position, *self._left.values()])
        self._orders = Orders(plan.route.order, max(position, self._left_to), None if state is None else state.get("orders"))
        self._position = self._settled = position
        self._since_ms = since_ms
        self._batches: deque[tuple[Sequence[Task], int, int]] = deque()  # what is to be done, the end of it, and bytes
        self._queued = self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._events = world.events(plan.route.id, str(place))
        self._there: frozenset[int] = frozenset()  # offsets of which the destination has what was made of them
        self._there_to = 0  # behind the last of them
        self._looked = since_ms is None  # whether it was looked what the destination has of former owners
        self._began_ms: int | None = None  # when what is under way was begun

    def start(self) -> None:
        """See `Runner.start`."""
        super().start()
        self.spawn(self._work())

    @property
    def position(self) -> int:
        """See `Runner.position`."""
        return self._position

    def has_room(self) -> bool:
        """See `Runner.has_room`."""
        return 2 * self._queued <= _TASKS_MAX and 2 * self._queued_bytes <= _BYTES_MAX

    def waiting(self) -> int:
        """See `Runner.waiting`."""
        return self._queued

    def oldest(self) -> int:
        """See `Runner.oldest`."""
        return self._settled

    def dump(self) -> Json:
        """See `Runner.dump`."""
        sending_ms = self._sending_ms()
        began: Json = {} if sending_ms is None else {"sending_ms": sending_ms}
        if self._settled >= self._left_to:
            return {"position": self._settled, "keys": {}, **began}
        keys = {key.hex(): [max(offset, self._settled), 1] for key, offset in self._left.items()}
        return {"position": self._left_to, "keys": keys, "orders": self._orders.dump(self._settled), **began}

    def _sending_ms(self) -> int | None:
        """Since when what is not settled may be at the destination, Unix time; None: none of it is."""
        former_ms = self._since_ms if self._settled < self._there_to or not self._looked else None
        return min((each for each in (former_ms, self._began_ms) if each is not None), default=None)

    def use(self, plan: Plan) -> None:
        """See `Runner.use`."""
        self._orders.turn(plan.route.order, max(self._position, self._left_to))
        super().use(plan)

    def take(self, tasks: Sequence[Task], end: int) -> bool:
        """See `Runner.take`."""
        if self.is_full(tasks):
            return False
        wanted = tasks  # most are so; offsets ascend
        if tasks and tasks[0].seen.offset < max(self._position, self._left_to):
            wanted = [task for task in tasks if task.seen.offset >= self._position and not self._was_settled(task)]
        self._position = max(self._position, end)
        if not wanted and not self._batches:
            self._settled = self._position
            return True
        size = sum([task.seen.bytes for task in wanted])
        self._batches.append((wanted, self._position, size))
        self._queued += len(wanted)
        self._queued_bytes += size
        self._wake.set()
        return True

    def _was_settled(self, task: Task) -> bool:
        seen = task.seen
        if seen.offset >= self._left_to:
            return False
        key = self._orders.key(seen.key, seen.offset)
        return seen.offset < self._left.get(key, self._left_to)

    def is_full(self, tasks: Sequence[Task]) -> bool:
        """See `Runner.is_full`. Kafka is slow for all or for none, so the others may wait a moment, too."""
        return bool(self._queued) and (self._queued + len(tasks) > _TASKS_MAX or self._queued_bytes > _BYTES_MAX)

    async def _work(self) -> None:
        if self._since_ms is not None:
            await self._pass_over(self._since_ms - _SKEW_MS, by_others=True)
            self._looked = True
        while True:
            if not self._batches:
                self._wake.clear()
                await self._wake.wait()
                continue
            # What has gathered meanwhile goes together, but not so much that room comes rarely.
            batches, tasks = list[tuple[Sequence[Task], int, int]](), list[Task]()
            for batch in self._batches:
                batches.append(batch)
                tasks += batch[0]
                if len(tasks) >= _TOGETHER_MIN:
                    break
            self._began_ms = self._world.now_ms()
            await self._deliver(tasks, [batch for batch, _, _ in batches])
            for _ in batches:
                self._batches.popleft()
            self._queued -= len(tasks)
            self._queued_bytes -= sum(size for _, _, size in batches)
            self._settled, self._began_ms = batches[-1][1], None
            if self._settled >= self._there_to:
                self._there = frozenset()
            self._room.set()
            if self.behind:
                self._wake_reader.set()

    async def _pass_over(self, since_ms: int, *, by_others: bool) -> None:
        """What the destination has since then, of an earlier owner or of what failed, is not delivered again."""
        destination = self.plan.route.destination
        assert isinstance(destination, ToTopic)
        topic, route = destination.topic, self.plan.route.id

        async def there() -> frozenset[int]:
            try:
                return await self._world.already(topic, route, self.place.topic, self.place.partition, since_ms, by_others=by_others)
            except NotFound:
                return frozenset()  # a topic that is not there has nothing

        self._there = await self.persistently(there)
        self._there_to = max(self._there, default=-1) + 1

    async def _deliver(self, tasks: Sequence[Task], batches: Sequence[Sequence[Task]]) -> None:
        """`tasks` of all batches. Slices begin with a batch: then those of other routes have the same tasks, and share what is written."""
        while any(batch and batch[0].plan is not self.plan for batch in batches):  # those of a batch were looked at together
            tasks = [made for task in tasks if (made := await self.as_now(task)) is not None]
            batches = [tasks]
        destination = (tasks[0].plan if tasks else self.plan).route.destination
        if not isinstance(destination, ToTopic):
            return  # the route goes elsewhere now: this runner is about to be closed, and keeps what it has not done
        partitions = await self._destination_partitions(tasks, destination.topic)
        if partitions is None:
            return
        delivered: list[Sequence[Task]] = []
        records: dict[int, list[Written]] = {}
        for batch in batches:
            for begin in range(0, len(batch), _SLICE):
                delivered.append(await self._render(batch[begin : begin + _SLICE], partitions, records))
                await asyncio.sleep(0)
        if records and (refused := await self._send(destination.topic, records)) is not None:
            rejected, attempts = refused
            there = self._there
            await self._refuse([(task, rejected) for each in delivered for task in each if task.seen.offset not in there], attempts)
            delivered = [[task for task in each if task.seen.offset in there] for each in delivered]
        await self._told(delivered)

    async def _told(self, delivered: Sequence[Sequence[Task]]) -> None:
        time_us, now_ms = to_micros(self._world.now()), self._world.now_ms()
        for tasks in delivered:
            if tasks:
                self.counts["delivered"] += len(tasks)
                await self._world.tell_all(self._deliveries.write_delivered(tasks, now_ms, time_us))
                await asyncio.sleep(0)

    async def _refuse(self, refusals: Iterable[tuple[Task, Rejected]], attempts: int = 1) -> None:
        """Each becomes a dead letter: those of a key one after the other, keys side by side."""
        keys: dict[bytes, list[tuple[Task, Rejected]]] = {}
        for task, refused in refusals:
            keys.setdefault(self._orders.key(task.seen.key, task.seen.offset), []).append((task, refused))
        left = iter(keys.values())

        async def bury_on() -> None:
            for each in left:
                for task, refused in each:
                    await self.give_up(
                        task, stage=refused.stage, code=refused.code, message=refused.message, attempts=attempts,
                        first_ms=self._world.now_ms(), latency_ms=self.age_ms(task),
                    )  # fmt: skip

        await asyncio.gather(*(bury_on() for _ in range(min(_LETTERS_MAX, len(keys)))))

    async def _render(self, tasks: Sequence[Task], partitions: int, records: dict[int, list[Written]]) -> Sequence[Task]:
        """Adds what is to be sent to `records`; which of the tasks that, or an earlier owner, delivers."""
        with suppress(TooLarge):  # which one, is seen one by one
            if not self._there and all(type(task.outcome) is Made for task in tasks):
                for partition, written in self._events.write_all(tasks, partitions).items():
                    records.setdefault(partition, []).append(written)
                return tasks
        delivered, refusals = list[Task](), list[tuple[Task, Rejected]]()
        found: dict[int, tuple[list[int], list[bytes]]] = {}
        for task in tasks:
            if task.seen.offset in self._there:
                delivered.append(task)
            elif isinstance(rendered := self._rendered(task, partitions), Rejected):
                refusals.append((task, rendered))
            else:
                offsets, bodies = found.setdefault(rendered.partition, ([], []))
                offsets.append(task.seen.offset)
                bodies.append(rendered.body)
                delivered.append(task)
        for partition, (offsets, bodies) in found.items():
            records.setdefault(partition, []).append((offsets, bodies_of(bodies)))
        await self._refuse(refusals)
        return delivered

    def _rendered(self, task: Task, partitions: int) -> Rendered | Rejected:
        if isinstance(task.outcome, Rejected):
            return task.outcome
        try:
            return self._events.write(task, task.outcome, partitions)
        except TooLarge as error:
            return Rejected(code=error.code, message=error.message, stage="transform")

    async def _destination_partitions(self, tasks: Sequence[Task], topic: str) -> int | None:
        """Of the destination; None: it does not exist, and what was to go there was given up."""
        policy, attempts = self.plan.route.retry, 0
        while True:
            try:
                return await self._world.partitions(topic)
            except NotFound as error:
                attempts += 1
                if policy.allows(error.code, True, attempts):
                    await asyncio.sleep(policy.delay_ms(attempts, topic) / 1000)
                    continue
                refused = Rejected(code=error.code, message=error.message, stage="deliver")
                await self._refuse(((task, refused) for task in tasks), attempts)
                return None
            except BackboneError as error:
                _log.warning("route.waiting", route=self.plan.route.id, place=str(self.place), code=error.code, message=error.message)
                await asyncio.sleep(_PAUSE_S)

    async def _send(self, topic: str, written: Mapping[int, Sequence[Written]]) -> tuple[Rejected, int] | None:
        """Returns when the broker has them all (each with its offset); or why it never takes them, and after how many attempts."""
        policy, attempts = self.plan.route.retry, 0
        began_ms = self._world.now_ms()
        records = {partition: _as_one(pieces) for partition, pieces in written.items()}
        while records:
            try:
                await self._world.send(topic, {partition: bodies for partition, (_, bodies) in records.items()})
            except BackboneError as error:
                self.last_error = f"{error.code}: {error.message}"
                if error.fault is Fault.PEER:  # Kafka is away: for everybody, and not for good
                    await asyncio.sleep(_PAUSE_S)
                    await self._world.settle_down()
                    await self._pass_over(began_ms - _WRITTEN_MS, by_others=False)  # who knows how much of it is there
                    records = self._missing(records)
                    continue
                attempts += 1
                if not policy.allows(error.code, True, attempts):
                    return Rejected(code=error.code, message=error.message, stage="deliver"), attempts
                self.counts["retried"] += sum(len(offsets) for offsets, _ in records.values())
                await asyncio.sleep(policy.delay_ms(attempts, topic) / 1000)
            else:
                return None
        return None

    def _missing(self, records: Mapping[int, Written]) -> dict[int, Written]:
        left: dict[int, Written] = {}
        for partition, (offsets, bodies) in records.items():
            rows = [row for row, offset in enumerate(offsets) if offset not in self._there]
            if rows:
                left[partition] = [offsets[row] for row in rows], bodies.picked(rows)
        return left


def _as_one(pieces: Sequence[Written]) -> Written:
    return list(chain.from_iterable([offsets for offsets, _ in pieces])), joined([bodies for _, bodies in pieces])
