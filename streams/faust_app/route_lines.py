"""A route to a webhook or a module, on one source partition: keys side by side, each in its order, failures parked.

`streams.routing.line` decides what may be attempted; this makes the attempts, and reads the log again for what was left there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from typing import assert_never

from streams.faust_app.route_ports import World
from streams.faust_app.route_runner import Place, Runner, Source
from streams.records import Json, Severity, derived_id
from streams.routing.bounds import SWEEP_JUMP
from streams.routing.gates import Gate
from streams.routing.items import Failure, Item
from streams.routing.line import Line
from streams.routing.orders import Orders
from streams.routing.plan import Plan
from streams.routing.recipes import Rejected
from streams.routing.routes import ToModule, ToTopic, ToWebhook
from streams.routing.tasks import Task, destination_event
from streams.webhooks.outcomes import Delivered, Failed, Outcome

#: Codes of failures that leave open whether the module has done what it was asked: the same request is repeated.
_UNANSWERED = frozenset({"module.silent", "kafka.unreachable", "kafka.timeout", "kafka.failed"})
#: Those that speak of the destination, not of what it was given; a 5xx may be either, so it takes many keys (`streams.routing.breaker`).
_DOWN = _UNANSWERED | {"module.unknown", "webhook.failed", "webhook.timeout", "webhook.tls-failed", "webhook.unreachable"}
#: Those of which the destination knows nothing.
_UNSENT = frozenset({"webhook.address-refused"})
#: Of an error that is told of a destination.
_ERROR_CHARACTERS_MAX = 500
#: Longest wait for the next due attempt, seconds; the clock that they are due by may be put back.
_PAUSE_S_MAX = 1.0
#: A sweep that has brought less than so many records is followed by a pause, so many times as long as it took, and no longer than that,
#: seconds: then more keys lack records, and it costs no more for all of them. Unless there is nothing else to do.
_SWEPT_FEW = 200
_SWEEP_PAUSE = 3.0
_SWEEP_PAUSE_S_MAX = 0.3


class LineRunner(Runner):
    """See the module. `state` as `dump` left it; without it everything from `position` on is to be done."""

    def __init__(
        self, world: World, plan: Plan, place: Place, source: Source, failed: Callable[[BaseException], None], *, position: int, state: Json
    ) -> None:
        super().__init__(world, plan, place, source, failed)
        self.line: Line[Task] = Line(position, state)
        self._orders = Orders(plan.route.order, self.line.position, None if state is None else state.get("orders"))
        self._gate = world.gates.enter(self, plan.route.destination)
        self._wake = asyncio.Event()
        self._swept = 0  # records that the sweep under way has brought
        self._sweep_at_s = 0.0  # none is begun before that, by the clock of the event loop
        self._woken_at_s = 0.0  # until then somebody will wake the reader

    def start(self) -> None:
        """See `Runner.start`."""
        super().start()
        self.spawn(self._work())

    @property
    def position(self) -> int:
        """See `Runner.position`."""
        return self.line.position

    def has_room(self) -> bool:
        """See `Runner.has_room`."""
        return self.line.has_much_room

    def waiting(self) -> int:
        """See `Runner.waiting`."""
        return self.line.waiting()

    def oldest(self) -> int:
        """See `Runner.oldest`."""
        return self.line.oldest()

    def waited_ms(self) -> float:
        """See `Runner.waited_ms`."""
        since_ms = self.line.waits_since_ms()
        return 0.0 if since_ms is None else max(0.0, float(self._world.now_ms() - since_ms))

    def dump(self) -> Json:
        """See `Runner.dump`."""
        dump = self.line.dump()
        if dump["keys"]:
            dump |= {"orders": self._orders.dump(self.line.oldest())}
        breaker = self._gate.breaker
        if breaker.open_until_ms is not None:
            dump |= {"down": [breaker.open_since_ms, breaker.open_until_ms, self._gate.error]}
        return dump

    def use(self, plan: Plan) -> None:
        """See `Runner.use`. What is not under way is looked at again, as the new version sees it; another destination asked for no wait."""
        same = plan.route.destination == self.plan.route.destination
        self.line.spill(None if same else self._world.now_ms())
        self._orders.turn(plan.route.order, self.line.position)
        super().use(plan)
        self._world.gates.leave(self, self._gate)
        self._gate = self._world.gates.enter(self, plan.route.destination)
        self._wake.set()

    async def close(self) -> None:
        """See `Runner.close`."""
        self._world.gates.leave(self, self._gate)
        await super().close()

    def take(self, tasks: Sequence[Task], end: int) -> bool:
        """See `Runner.take`."""
        for task in tasks:
            if task.seen.offset >= self.line.position and not self.line.offer(self._item(task)):
                self._pump()
                return False
        self.line.skip_to(end)
        self._pump()
        return True

    async def room(self, tasks: Sequence[Task]) -> None:
        """See `Runner.room`. Only for itself: nobody else waits for a destination that is not Kafka."""
        if self.behind and tasks and self.line.would_leave(self._item(tasks[0]).key, tasks[0].size):
            await self.some_room()

    def _item(self, task: Task) -> Item[Task]:
        seen = task.seen
        return Item(seen.offset, self._orders.key(seen.key, seen.offset), seen.timestamp_ms, task.size, task)

    # --- attempts ---

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            self._pump()
            now_ms = self._world.now_ms()
            due_ms = [each for each in (self.line.next_due_ms(), self._gate.breaker.next_ms(now_ms)) if each is not None and each > now_ms]
            pause_s = min([(min(due_ms) - now_ms) / 1000] if due_ms else [_PAUSE_S_MAX], default=_PAUSE_S_MAX)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(pause_s, _PAUSE_S_MAX)):
                    await self._wake.wait()

    def _pump(self) -> None:
        """Begins what can be begun."""
        now_ms = self._world.now_ms()
        if self._may_attempt:
            most = self._gate.most(self, now_ms, self._world.at_a_time(self.plan.route.destination))
            while (begun := self.line.begin(now_ms, *most)) is not None:
                self.spawn(self._attempt(*begun))
        if self.line.hungry() or (self.behind and self.line.has_much_room):
            self._wake_reader.set()

    @property
    def _may_attempt(self) -> bool:
        return not (self.held or self._stuck) and self._world.ours()

    async def _attempt(self, item: Item[Task], failure: Failure | None) -> None:
        task = await self.as_now(item.work)
        if task is None:
            self.counts["filtered"] += 1
            self.line.settle(item.key)
            self._room.set()
            self._pump()
            return
        attempts = 1 if failure is None else failure.attempts + 1
        first_ms = self._world.now_ms() if failure is None else failure.first_ms
        gate = self._gate  # the route may lead elsewhere by then
        outcome, stage = await self._made(task, failure)
        if stage == "deliver":
            await self._judge(gate, item.key, outcome)
        if isinstance(outcome, Delivered):
            self.counts["delivered"] += 1
            await self.tell(task, attempts, "delivered", None, self.age_ms(task))
            self.line.settle(item.key)
        elif self.plan.route.retry.allows(outcome.code, outcome.retryable, attempts):
            now_ms = self._world.now_ms()
            self.counts["retried"] += 1
            self.last_error = f"{outcome.code}: {outcome.message}"
            seed = f"{self.plan.route.id}/{self.place}/{item.offset}"
            due_ms = now_ms + self.plan.route.retry.delay_ms(attempts, seed, outcome.after_ms)
            generation = (0 if failure is None else failure.generation) + (outcome.code not in _UNANSWERED)
            await self.tell(task, attempts, "retrying", (outcome.code, outcome.message), self.age_ms(task))
            self.line.fail(
                item.key,
                Failure(
                    attempts=attempts, first_ms=first_ms, due_ms=due_ms, code=outcome.code, message=outcome.message[:200],
                    generation=generation,
                ),
            )  # fmt: skip
        else:
            await self.give_up(
                task, stage=stage, code=outcome.code, message=outcome.message, attempts=attempts, first_ms=first_ms,
                latency_ms=self.age_ms(task),
            )  # fmt: skip
            self.line.settle(item.key)
        self._room.set()
        self._pump()
        if self.line.next_due_ms() is not None:
            self._wake.set()  # perhaps it is due before what the others wait for

    async def _made(self, task: Task, failure: Failure | None) -> tuple[Outcome, str]:
        """An attempt, and the stage that it belongs to."""
        ready = task.outcome if isinstance(task.outcome, Rejected) else task.plan.ready(task.outcome)
        if isinstance(ready, Rejected):
            return Failed(code=ready.code, message=ready.message, retryable=False), ready.stage
        destination = task.plan.route.destination
        match destination:
            case ToWebhook():
                return await self._world.post(destination, task.delivery_id, ready.event), "deliver"
            case ToModule():
                # An answered request is not repeated: the module would give the same answer. Nor is one that was put back.
                generation = task.attempts + (0 if failure is None else failure.generation)
                request = derived_id("route-request", task.delivery_id, generation)
                return await self._world.call(destination, request, ready, task.seen.depth), "deliver"
            case ToTopic():
                raise asyncio.CancelledError  # the route goes elsewhere now: this runner is about to be closed
            case _:
                assert_never(destination)

    async def _judge(self, gate: Gate, key: bytes, outcome: Outcome) -> None:
        """What the attempt says of the destination: also who refuses is there."""
        now_ms = self._world.now_ms()
        if isinstance(outcome, Failed) and outcome.code in _DOWN:
            if gate.failed(now_ms, (self.place, key), f"{outcome.code}: {outcome.message}"[:_ERROR_CHARACTERS_MAX]):
                await self._tell_of(gate, "route.destination-down", "error", {"error": gate.error})
        elif not (isinstance(outcome, Failed) and outcome.code in _UNSENT):
            since_ms = gate.breaker.open_since_ms
            if gate.succeeded():
                told: dict[str, Json] = {"error": gate.error, "seconds": round((now_ms - since_ms) / 1000, 1)}
                await self._tell_of(gate, "route.destination-up", "info", told)

    async def _tell_of(self, gate: Gate, kind: str, severity: Severity, data: dict[str, Json]) -> None:
        """Once for every route that leads there: it concerns them all."""
        for route_id in list(gate.routes()):
            await self._world.report(destination_event(kind, route_id, gate.name, severity, data, self._world.now()))

    # --- what the other ways there see ---

    @property
    def route_id(self) -> str:
        """See `Visitor.route_id`."""
        return self.plan.route.id

    @property
    def under_way(self) -> int:
        """See `Visitor.under_way`."""
        return self.line.under_way

    def wants(self, now_ms: int, *, again: bool) -> bool:
        """See `Visitor.wants`."""
        return self._may_attempt and self.line.is_ready(now_ms, again=again)

    def look_again(self) -> None:
        """See `Visitor.look_again`."""
        self._wake.set()

    # --- sweeps ---

    def hungry(self) -> bool:
        """See `Runner.hungry`."""
        return bool(self.line.hungry())

    async def sweep(self) -> bool:
        """See `Runner.sweep`."""
        clock = asyncio.get_running_loop().time
        if self.line.sweep_from() is None or self._too_early(clock()):
            return False
        self._swept, began_s = 0, clock()
        end = self.line.begin_sweep()
        try:
            while (place := self.line.sweep_next()) is not None:
                await self._sweep_to(place, end)
        finally:
            self.line.end_sweep()
            pause_s = min(_SWEEP_PAUSE * (clock() - began_s), _SWEEP_PAUSE_S_MAX) if self._swept < _SWEPT_FEW else 0.0
            self._sweep_at_s = clock() + pause_s
            self._wake.set()
        return True

    def _too_early(self, now_s: float) -> bool:
        if now_s >= self._sweep_at_s or self.line.is_idle:
            return False
        if self._woken_at_s <= now_s:
            self._woken_at_s = self._sweep_at_s
            asyncio.get_running_loop().call_at(self._sweep_at_s, self._wake_reader.set)
        return True

    async def _sweep_to(self, start: int, end: int) -> None:
        """Reads until there is nothing to be had for a long stretch."""
        plan = self.plan
        async with aclosing(self._source.scan(start, end)) as records:
            async for stored in records:
                key = self._orders.key(stored.key, stored.offset)
                if self.line.wants(stored.offset, key):
                    task = await self._source.task(stored, plan)
                    if self.plan is not plan:
                        return  # it is to be looked at as the new version sees it
                    if task is not None and self.line.wants(stored.offset, key) and self.line.refill(self._item(task)):
                        self._swept += 1
                        self._wake.set()
                place = self.line.sweep_next()
                if place is None or place > stored.offset + SWEEP_JUMP:
                    return
        self.line.swept(end)
