"""One source partition: looks at every record once for all routes that are live, and hands them what is their business.

What Faust brings is offered; where it comes faster than it can be handled, or begins behind what was handled last, the partition reads the
log itself until it has come to what is live. So no Faust agent waits for a route longer than a moment (`room`), and nothing is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from streams.concurrency import cancelled
from streams.errors import BackboneError, InvalidInput
from streams.faust_app.brought import Brought
from streams.faust_app.prefix import Chunk, Fetched
from streams.faust_app.route_lines import LineRunner
from streams.faust_app.route_ports import World
from streams.faust_app.route_runner import Place, Runner
from streams.faust_app.route_topics import TopicRunner
from streams.faust_app.slices import Slices
from streams.log.ports import Stored
from streams.log.rule import ReadersRule, Verdict
from streams.matching.matchers import RecordView
from streams.records import Json
from streams.routing.index import RouteIndex
from streams.routing.letters import Redriven, redriven_of, resolved_by
from streams.routing.plan import Plan
from streams.routing.recipes import Filtered, Rejected
from streams.routing.routes import ActiveRoute, ToTopic
from streams.routing.seen import Seen
from streams.routing.tasks import Task
from streams.topics import BY_NAME, RETRY_SUFFIX

Record: TypeAlias = Stored | Fetched
Tasks: TypeAlias = dict[str, list[Task]]  #: route → what it has to do

#: Records of a batch that is read from the log.
_BATCH_MAX = 1000
_AGAIN_S = 1.0
#: So many times in a row (a tenth of a second each) that a runner has settled nothing it is waited for.
_STANDS_MAX = 10

_log = structlog.get_logger("routes")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a route has left on a source partition: from a checkpoint, or where it begins."""

    position: int
    state: Json = None  #: as `Runner.dump` gave it
    since_ms: int | None = None  #: since when something that is not settled in it may have been delivered to a topic, Unix time


class RoutePartition:
    """See the module. `failed` gets what must end the process; with `buries` nobody else cares for records that cannot be read."""

    def __init__(
        self, world: World, topic: str, partition: int, *, failed: Callable[[BaseException], None], buries: bool, brought: Brought
    ) -> None:  # fmt: skip
        self.place = Place(topic, partition)
        self.position = 0  #: see `Source.position`
        self.end = 0  #: of the log, as far as is known
        self.runners: dict[str, Runner] = {}
        self._world = world
        self._failed = failed
        self._buries = buries
        self._is_log = topic in BY_NAME and BY_NAME[topic].log
        self._is_retry = topic.endswith(RETRY_SUFFIX)
        self._rule: tuple[int, ReadersRule] | None = None  # of logs: the offset that it has come to
        self._index = RouteIndex(topic, ())
        self._physical = topic  # name on the broker
        self._brought = brought
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # --- life ---

    def start(self, routes: Sequence[ActiveRoute], states: Mapping[str, State], end: int) -> None:
        """Begins with these routes, each where its state says; the log ends at `end`."""
        self.end = max(self.end, end)
        for active in routes:
            self._add(active, states[active.id])
        # Who is not as far as the others reads what it lacks by itself.
        self.position = max((runner.position for runner in self.runners.values()), default=self.end)
        self._settle_down()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Stops at once; the runners keep their states."""
        if self._task is not None:
            await cancelled(self._task)
        await asyncio.gather(*(runner.close() for runner in self.runners.values()))

    async def change(self, active: ActiveRoute | None, route_id: str, state: State | None) -> Runner | None:
        """A route has a new version (`state`: of one that was not here), or is gone (None); the runner that ended by it."""
        runner = self.runners.get(route_id)
        if active is None:
            self.runners.pop(route_id, None)
            if runner is not None:
                await runner.close()
            self._settle_down()
            return runner
        if runner is not None and isinstance(active.route.destination, ToTopic) == isinstance(runner, TopicRunner):
            runner.use(Plan(active))
        elif runner is not None:
            await runner.close()
            self._add(active, State(position=runner.position, state=runner.dump()))
        elif state is not None:
            self._add(active, state)
            if len(self.runners) == 1:
                self.position = self.runners[route_id].position
        self._settle_down()
        return None

    def _add(self, active: ActiveRoute, state: State) -> None:
        plan = Plan(active)
        about = (self._world, plan, self.place, self, self._failed)
        runner: Runner
        if isinstance(active.route.destination, ToTopic):
            runner = TopicRunner(*about, position=state.position, state=state.state, since_ms=state.since_ms)
        else:
            runner = LineRunner(*about, position=state.position, state=state.state)
        self.runners[active.id] = runner
        runner.start()

    def _settle_down(self) -> None:
        self._index = RouteIndex(self.place.topic, [runner.plan.active for runner in self.runners.values()])
        for runner in self.runners.values():
            if runner.position < self.position:
                runner.fall_behind()
        self._wake.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    # --- what is live ---

    def offer(self, chunk: Chunk) -> None:
        """What Faust has fetched."""
        self.end = max(self.end, chunk.end)
        if self.runners:
            self._brought.put(chunk)
        self._wake.set()

    async def room(self) -> None:
        """Returns when there is room for what is live, or after a short while."""
        await self._brought.room()

    async def _run(self) -> None:
        brought = self._brought
        while True:
            self._wake.clear()
            if not self.runners:
                brought.clear()
                self.position = self.end
            if self.position >= self.end:
                await self._wake.wait()
            elif (chunk := brought.take(self.position)) is not None:
                self._physical = chunk.topic
                records = chunk.records
                if records and records[0].offset < self.position:
                    records = tuple(record for record in records if record.offset >= self.position)
                await self._handle(await self._counting(records, chunk.end), chunk.end)
            elif (end := brought.missing(self.position, self.end)) > self.position:
                await self._read_on(end)
            else:
                await brought.expected()

    async def _read_on(self, end: int) -> None:
        batch: list[Stored] = []
        try:
            async with aclosing(self.scan(self.position, end)) as records:
                async for stored in records:
                    batch.append(stored)
                    if len(batch) == _BATCH_MAX:
                        await self._handle(batch, stored.offset + 1)
                        batch = []
                        if self._brought.holds(self.position):
                            return  # from here on it is at hand
            await self._handle(batch, end)
        except BackboneError as error:
            _log.warning("route.waiting", place=str(self.place), code=error.code, message=error.message)
            await asyncio.sleep(_AGAIN_S)

    async def _counting(self, records: Sequence[Fetched], end: int) -> Sequence[Fetched]:
        """Those that count, of all from the position to `end`."""
        if not self._is_log:
            return records
        if self._rule is None or self._rule[0] != self.position:
            self._rule = (self.position, ReadersRule(await self._epoch_at(self.position)))
        rule = self._rule[1]
        found = [stored for stored in records if rule.judge_headers(stored.headers) is Verdict.VALID]
        self._rule = (end, rule)
        return found

    async def _epoch_at(self, offset: int) -> int:
        while True:
            try:
                return await self._world.epoch_at(self.place.topic, self.place.partition, offset)
            except BackboneError as error:
                _log.warning("route.waiting", place=str(self.place), code=error.code, message=error.message)
                await asyncio.sleep(_AGAIN_S)

    async def _handle(self, records: Sequence[Record], end: int) -> None:
        """All records from the position to `end`."""
        live = {name: runner for name, runner in self.runners.items() if not runner.behind}
        plans = {name: runner.plan for name, runner in live.items()}
        tasks: Tasks = {name: [] for name in live}
        slices = Slices(asyncio.get_running_loop().time)
        slices.begin()
        for record in records:
            if self._is_retry:
                await self._look_at_redriven(self._seen(record, None).raw, live, tasks)
            else:
                try:
                    self._look(record, live, tasks)
                except InvalidInput as error:
                    await self._look_again(record, live, tasks, error)
            if slices.over():
                self._brought.looked_at = record.offset
                await asyncio.sleep(0)
                slices.begin()
        await self._room(live, tasks)
        self.position = end
        for name, runner in self.runners.items():
            if live.get(name) is runner and runner.plan is plans[name]:
                runner.offer(tasks[name], end)
            elif not runner.behind and runner.position < end:
                runner.fall_behind()  # it has come to what was live a moment ago, or has a new version

    async def _room(self, live: Mapping[str, Runner], tasks: Tasks) -> None:
        """Runners that have no room are waited for while they get on: to read the log by themselves costs them more.

        But only a moment while somebody else has nothing to do, whom that would hold up.
        """
        stands = 0
        while full := [runner for name, runner in live.items() if not runner.behind and runner.is_full(tasks[name])]:
            idle = any(not runner.behind and not runner.waiting() for runner in live.values())
            before = [runner.oldest() for runner in full]
            await asyncio.gather(*(runner.some_room() for runner in full))
            stands = stands + 1 if [runner.oldest() for runner in full] == before else 0
            if idle or stands >= _STANDS_MAX:
                return

    def _look(self, record: Record, live: Mapping[str, Runner], tasks: Tasks) -> None:
        """Raises `InvalidInput` if nobody can read it: then it is nobody's task."""
        view = self._world.view(record.value)
        seen: Seen | None = None
        found: list[tuple[Runner, Task | None]] = []
        for route_id in self._index.routes(view):
            runner = live.get(route_id)
            if runner is None:
                continue
            if seen is None:
                seen = self._seen(record, view)
            plan = runner.plan
            outcome = plan.made(view, seen.depth, seen.known)
            found.append((runner, None if isinstance(outcome, Filtered) else Task(seen, plan, outcome)))
        for runner, task in found:
            if task is None:
                runner.counts["filtered"] += 1
            else:
                tasks[runner.plan.route.id].append(task)

    async def _look_again(self, record: Record, live: Mapping[str, Runner], tasks: Tasks, error: InvalidInput) -> None:
        """Perhaps its schema can be learned; else it is a dead letter."""
        if await self._world.learn(error):
            try:
                self._look(record, live, tasks)
            except InvalidInput as found:
                error = found
            else:
                return
        if self._buries:
            await self._bury_unreadable(self._seen(record, None).raw, error)

    def _seen(self, record: Record, view: RecordView | None) -> Seen:
        if isinstance(record, Stored):
            return Seen(record.topic, record.partition, record, record.timestamp_ms, view)
        return Seen(self._physical, self.place.partition, record, record.timestamp, view)

    async def _look_at_redriven(self, stored: Stored, live: Mapping[str, Runner], tasks: Tasks) -> None:
        redriven = redriven_of(stored.headers)
        if redriven is None or not redriven.for_route:
            if redriven is None and resolved_by(stored.headers) is None:
                _log.warning("redrive.stranger", place=str(self.place), offset=stored.offset)
        elif redriven.route not in self.runners:
            await self._bury_orphan(stored, redriven)
        elif redriven.route in live:
            tasks[redriven.route].append(await self._redriven(stored, redriven, live[redriven.route].plan))

    async def _redriven(self, stored: Stored, redriven: Redriven, plan: Plan) -> Task:
        """What was put back is the route's business, whatever its matcher says: somebody has decided so."""
        try:
            view = await self._view(stored)
            seen = self._seen(stored, view)
            outcome = plan.made(view, seen.depth, seen.known)
        except InvalidInput as error:
            return Task(self._seen(stored, None), plan, Rejected(code=error.code, message=error.message, stage="route"), redriven)
        if isinstance(outcome, Filtered):
            outcome = Rejected(code="route.filtered", message=outcome.why, stage="filter")
        return Task(seen, plan, outcome, redriven)

    async def _view(self, stored: Stored) -> RecordView:
        try:
            return self._world.view(stored.value)
        except InvalidInput as error:
            if not await self._world.learn(error):
                raise
        return self._world.view(stored.value)

    async def _bury_orphan(self, stored: Stored, redriven: Redriven) -> None:
        """A record was put back for a route that is gone since."""
        refused = Rejected(code="route.unknown", message=f"The route {redriven.route} is not in force.", stage="route")
        while True:
            try:
                await self._world.bury(
                    None, stored, redriven, stage="route", code=refused.code, message=refused.message, attempts=redriven.attempts,
                    first_ms=0,
                )  # fmt: skip
            except BackboneError as error:
                _log.error("route.stopped", place=str(self.place), code=error.code, message=error.message)
                await asyncio.sleep(_AGAIN_S)
            else:
                return

    async def _bury_unreadable(self, stored: Stored, error: BackboneError) -> None:
        while True:
            try:
                await self._world.bury_unreadable(stored, error)
            except BackboneError as failed:
                _log.error("route.stopped", place=str(self.place), code=failed.code, message=failed.message)
                await asyncio.sleep(_AGAIN_S)
            else:
                return

    # --- what runners read ---

    async def scan(self, start: int, end: int) -> AsyncGenerator[Stored, None]:
        """See `Source.scan`."""
        slices = Slices(asyncio.get_running_loop().time)
        slices.begin()
        async with aclosing(self._world.read(self.place.topic, self.place.partition, start, end)) as records:
            async for stored in records:
                yield stored
                if slices.over():
                    await asyncio.sleep(0)
                    slices.begin()

    async def task(self, stored: Stored, plan: Plan) -> Task | None:
        """See `Source.task`."""
        if self._is_retry:
            redriven = redriven_of(stored.headers)
            if redriven is None or not redriven.for_route or redriven.route != plan.route.id:
                return None
            return await self._redriven(stored, redriven, plan)
        try:
            view = await self._view(stored)
            if plan.mismatch(self.place.topic, view) is not None:
                return None
            seen = self._seen(stored, view)
            outcome = plan.made(view, seen.depth, seen.known)
        except InvalidInput:
            return None  # whoever looked at it first has told
        return None if isinstance(outcome, Filtered) else Task(seen, plan, outcome)
