"""One route on one source partition: what both kinds of runners have in common, by destination (`route_topics`, `route_lines`)."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog

from streams.concurrency import cancelled
from streams.errors import BackboneError
from streams.faust_app.route_ports import World
from streams.log.ports import Stored
from streams.records import Json, to_micros
from streams.routing.plan import Plan
from streams.routing.tasks import Task, loop_event, state_event

_log = structlog.get_logger("routes")

#: Pause before something is tried again that Kafka did not take or give, seconds.
_AGAIN_S = 1.0
#: Tasks that a runner that is behind takes at a time, and before others get a turn; how long, and how often, it waits for room before it
#: lets go of what it reads.
_CATCH_UP_TASKS = 200
_CATCH_UP_TURN = 5000
_ROOM_S = 0.1
_PATIENCE = 20

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Place:
    """A source partition."""

    topic: str  #: logical name
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


class Source(Protocol):
    """What a runner sees of its source partition."""

    position: int  #: before it every live runner has looked at everything

    def scan(self, start: int, end: int) -> AsyncGenerator[Stored, None]:
        """The records of [start, end) that count. Raises `BackboneError`."""

    async def task(self, stored: Stored, plan: Plan) -> Task | None:
        """What the route has to do with a record; None: nothing."""


class Runner(ABC):
    """See the module. `failed` gets what must end the process."""

    def __init__(self, world: World, plan: Plan, place: Place, source: Source, failed: Callable[[BaseException], None]) -> None:
        self.plan = plan
        self.place = place
        self.behind = False  #: it does not look at what is live, but reads the log itself
        self.counts: Counter[str] = Counter()  #: delivered, retried, dead, filtered
        self.last_error: str | None = None
        self._world = world
        self._source = source
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake_reader = asyncio.Event()
        self._room = asyncio.Event()  # something was settled
        self._deliveries = world.deliveries(plan.active, place.topic, place.partition)
        self._stuck = 0  # dead letters that cannot be written

    # --- what differs ---

    @property
    @abstractmethod
    def position(self) -> int:
        """The next offset to look at."""

    @abstractmethod
    def take(self, tasks: Sequence[Task], end: int) -> bool:
        """What the route has to do with the records from `position` to `end`. False: it has not taken them all."""

    @abstractmethod
    def dump(self) -> Json:
        """Where a successor goes on: `position`, `keys`."""

    @abstractmethod
    def has_room(self) -> bool:
        """Whether it is worth while to look further."""

    @abstractmethod
    def waiting(self) -> int:
        """About how many records have been looked at and are not settled."""

    @abstractmethod
    def oldest(self) -> int:
        """The first offset that is not settled."""

    def waited_ms(self) -> float:
        """For how long the record could have been attempted whose turn is next; 0: there is none."""
        return 0.0

    def hungry(self) -> bool:
        """Whether something that was left in the log is to be read again."""
        return False

    async def sweep(self) -> bool:
        """Reads again what was left in the log; whether there was anything to read."""
        return False

    # --- life ---

    def start(self) -> None:
        """Begins to work."""
        self.spawn(self._read())

    async def close(self) -> None:
        """Stops at once; what is unfinished stays so in `dump`."""
        tasks, self._tasks = self._tasks, set()
        await cancelled(*tasks)

    def use(self, plan: Plan) -> None:
        """From now on it works as another version of the route says."""
        self.plan = plan
        self._deliveries = self._world.deliveries(plan.active, self.place.topic, self.place.partition)
        self._wake_reader.set()

    async def as_now(self, task: Task) -> Task | None:
        """The task as the version in force has it: it may have been made before the route was changed. None: it is no task any more."""
        while task.plan is not (plan := self.plan):
            made = await self.persistently(partial(self._source.task, task.raw, plan))
            if made is None:
                return None
            task = made
        return task

    @property
    def held(self) -> bool:
        """Whether the route is not enabled: what comes waits in the log."""
        return not self.plan.route.enabled

    def offer(self, tasks: Sequence[Task], end: int) -> None:
        """What is live; what it does not take it reads itself, later."""
        if self.behind:
            return
        if self.held or not self.take(tasks, end):
            self.fall_behind()

    def fall_behind(self) -> None:
        """It reads the log from its own position on until it has come to what is live."""
        self.behind = True
        self._wake_reader.set()

    async def _read(self) -> None:
        while True:
            self._wake_reader.clear()
            if self.held:
                await self._wake_reader.wait()
                continue
            # In turn: keys that fail all the time hold up nobody who is behind, nor those who are behind a key that is due.
            swept = await self.persistently(self.sweep)
            if self.behind and self.has_room():
                if self.position >= self._source.position:
                    self.behind = False
                else:
                    await self.persistently(self._catch_up)
            elif not swept:
                await self._wake_reader.wait()

    async def _catch_up(self) -> None:
        """Reads on until it has come to what is live, has no room, or has read for a while and something else is to be read."""
        found: list[Task] = []
        plan, left = self.plan, _CATCH_UP_TURN
        end = self._source.position
        async with aclosing(self._source.scan(self.position, end)) as records:
            async for stored in records:
                if (task := await self._source.task(stored, plan)) is not None:
                    found.append(task)
                if len(found) >= _CATCH_UP_TASKS:
                    left -= len(found)
                    if not await self._taken(found, stored.offset + 1, plan) or (left <= 0 and self.hungry()):
                        return
                    found = []
        await self._taken(found, end, plan)

    async def _taken(self, tasks: Sequence[Task], end: int, plan: Plan) -> bool:
        """Waits a little for room where there is none: to begin reading anew costs more."""
        for _ in range(_PATIENCE):
            await self.room(tasks)
            if self.plan is not plan:
                return False  # they are to be looked at as the new version sees them
            if self.take(tasks, end):
                return True
            await self.some_room()
        return False

    def is_full(self, tasks: Sequence[Task]) -> bool:
        """Whether it would take these if others were settled first, and is to be waited for."""
        return False

    async def room(self, tasks: Sequence[Task]) -> None:
        """Returns when these can be taken, or after a short while."""
        if self.is_full(tasks):
            await self.some_room()
        else:
            await asyncio.sleep(0)

    async def some_room(self) -> None:
        """Until something is settled, for a short while."""
        self._room.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_ROOM_S):
                await self._room.wait()

    # --- shared ---

    async def persistently(self, act: Callable[[], Awaitable[Found]]) -> Found:
        """What Kafka does not take or give is asked for until it does."""
        while True:
            try:
                return await act()
            except BackboneError as error:
                _log.warning("route.waiting", route=self.plan.route.id, place=str(self.place), code=error.code, message=error.message)
                await asyncio.sleep(_AGAIN_S)

    async def give_up(self, task: Task, *, stage: str, code: str, message: str, attempts: int, first_ms: int, latency_ms: float) -> None:
        """A dead letter, if the route wants them, and a delivery that says so. Where a letter cannot be written, the route stops.

        `attempts`: since the record was put back, if it was.
        """
        active = self.plan.active
        _log.warning(
            "delivery.dead", route=active.id, event_id=task.event_id, place=str(self.place), offset=task.seen.offset, code=code,
            message=message, attempts=attempts,
        )  # fmt: skip
        self.counts["dead"] += 1
        self.last_error = f"{code}: {message}"
        if active.route.dead_letter:
            await self._bury(task, stage=stage, code=code, message=message, attempts=task.attempts + attempts, first_ms=first_ms)
        if code == "route.loop":
            await self._world.report(loop_event(active, task, code, message, attempts, self._world.now()))
        await self.tell(task, attempts, "dead", (code, message), latency_ms)

    async def _bury(self, task: Task, *, stage: str, code: str, message: str, attempts: int, first_ms: int) -> None:
        failures = 0
        while True:
            try:
                await self._world.bury(
                    self.plan.active, task.raw, task.redriven, stage=stage, code=code, message=message, attempts=attempts, first_ms=first_ms
                )
            except BackboneError as error:
                failures += 1
                self._stuck += failures == 1
                _log.error("route.stopped", route=self.plan.route.id, place=str(self.place), code=error.code, message=error.message)
                if failures == 1:
                    await self.report("route.stopped", "error", {"code": "dlq.unwritable", "message": f"{error.code}: {error.message}"})
                await asyncio.sleep(_AGAIN_S)
                continue
            if failures:
                self._stuck -= 1
                await self.report("route.resumed", "info", {})
            return

    async def tell(self, task: Task, attempt: int, status: str, error: tuple[str, str] | None, latency_ms: float) -> None:
        """Tells what became of an attempt."""
        time_us = to_micros(self._world.now())
        await self._world.tell([self._deliveries.write(task, task.attempts + attempt, status, error, latency_ms, time_us)])

    async def report(self, kind: str, severity: Any, data: dict[str, Json]) -> None:
        """Tells how the route does here."""
        await self._world.report(state_event(kind, self.plan.route.id, str(self.place), severity, data, self._world.now()))

    def age_ms(self, task: Task) -> float:
        """How long ago the record arrived."""
        return max(0.0, float(self._world.now_ms() - task.seen.timestamp_ms))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Work beside the others; what it raises ends the process."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)
