"""Performs the actions of one partition of composites, beside the Faust agents: nothing here holds up matching or correlation.

What the owner of the partition has appended is offered to the lanes (`action_lanes`) as soon as it is acknowledged; the log is read only
for what an earlier owner left, and by lanes that are behind.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import structlog

from streams.concurrency import cancelled
from streams.errors import BackboneError
from streams.faust_app.action_lanes import Item, Lanes
from streams.faust_app.action_plan import Call, Task, Undone, Write, delivery, report
from streams.log.ports import Stored
from streams.records import Json, now
from streams.webhooks.outcomes import Delivered, Failed, Outcome, delay_ms

#: Errands written at a time.
_BATCH_MAX = 500
#: Pause before Kafka is tried again, seconds.
_AGAIN_S = 1.0

_log = structlog.get_logger("actions")


class Ports(Protocol):
    """The world of actions."""

    attempts_max: int  #: at a webhook
    retry_ms: int  #: wait after the first

    def read(self, partition: int, start: int, end: int) -> AsyncGenerator[Stored, None]:
        """The valid composites of [start, end) that have actions, in order. Raises `BackboneError`: these were not all."""

    async def done_since(self, time_ms: int) -> Collection[str]:
        """Keys of actions known as done or given up, from about this moment on (Unix time). Raises `BackboneError`."""

    def items_of(self, stored: Stored) -> list[Item]:
        """What is to be done for a composite."""

    async def write(self, writes: Sequence[Write]) -> list[Failed | None]:
        """Returns when the broker has them; says which it never can. Raises `BackboneError`: it did not get them all."""

    async def bury(self, raw: Stored, task: Task, failed: Failed, attempts: int) -> None:
        """Writes a dead letter. Raises `BackboneError`."""

    async def post(self, call: Call) -> tuple[Outcome, float]:
        """One attempt at a webhook, and how long it took, milliseconds."""


class ActionPartition:
    """See the module. `failed` gets what must end the process."""

    def __init__(self, ports: Ports, partition: int, failed: Callable[[BaseException], None]) -> None:
        self._ports = ports
        self._partition = partition
        self._failed = failed
        self._lanes: Lanes | None = None
        self._end = 0  # of the log, as far as it is ours
        self._live = False  # everything before the end has been offered
        self._inherited_to = 0  # what lies before it was appended by others, or before the hold was lost
        self._done: Collection[str] = ()
        self._done_since_ms: int | None = None
        # Each has one who waits for it, who clears it before he looks: what happens while he looks is not missed.
        self._to_write = asyncio.Event()  # there is something for Kafka's lane
        self._finished = asyncio.Event()  # something was finished, perhaps a lane
        self._tasks: set[asyncio.Task[None]] = set()
        self._refilling: set[str] = set()
        self._performed, self._given_up = Counter[str](), Counter[str]()  # by rule

    # --- what the owner of the partition calls ---

    async def begin(self, state: Json, *, position: int, end: int) -> None:
        """The partition is ours, and its log ends at `end`. `state` is what the last checkpoint has of `dump`.

        Without one everything from offset `position` on is to be done. An owner that claims the partition anew goes on where it was.
        """
        await self.close()
        kept = None if self._lanes is None else self._lanes.dump()
        lanes = self._lanes = Lanes(state if kept is None else kept, position=position)
        self._end, self._live = end, lanes.position >= end
        self._inherited_to, self._done, self._done_since_ms = end, (), None
        self._start(self._write_on())
        if not self._live:
            self._start(self._offer_rest())
        for name in list(lanes.lanes):
            self._refill(name)

    def said(self, records: Sequence[Stored], end: int) -> None:
        """Records (those with actions) were appended and acknowledged; the log now ends at `end`."""
        self._end = end
        lanes = self._lanes
        if not self._live or lanes is None:
            return
        for stored in records:
            if not self._offer(lanes, self._ports.items_of(stored)):
                self._live = False
                lanes.position = stored.offset
                self._start(self._offer_rest())
                return
        lanes.position = end

    def figures(self) -> dict[str, dict[str, int]]:
        """Rule → how many of its actions were performed and given up here since `begin`, and how many wait in memory."""
        rules = self._performed.keys() | self._given_up.keys()
        waiting = Counter[str]()
        for lane in self._lanes.lanes.values() if self._lanes is not None else ():
            waiting.update(item.errand.task.cause.composite.rule_id for item in lane.todo.values())
        return {
            rule: {"performed": self._performed[rule], "given_up": self._given_up[rule], "waiting": waiting[rule]}
            for rule in sorted(rules | waiting.keys())
        }

    def dump(self) -> Json:
        """Where a successor goes on; None before `begin`."""
        return None if self._lanes is None else self._lanes.dump()

    async def close(self) -> None:
        """Stops at once; what is unfinished stays so in `dump`."""
        tasks, self._tasks = self._tasks, set()
        await cancelled(*tasks)
        self._refilling.clear()
        self._live = False

    # --- offering ---

    async def _left_of(self, stored: Stored) -> list[Item]:
        """What is to be done for a composite that was read, less what an earlier owner is known to have done."""
        items = self._ports.items_of(stored)
        if stored.offset >= self._inherited_to:
            return items
        if self._done_since_ms is None or stored.timestamp_ms < self._done_since_ms:
            self._done = await self._ports.done_since(stored.timestamp_ms)
            self._done_since_ms = stored.timestamp_ms
        return [item for item in items if item.errand.task.key not in self._done]

    def _offer(self, lanes: Lanes, items: Sequence[Item]) -> bool:
        taken = lanes.offer(items)
        if taken is None:
            return False
        self._begin_items(taken)
        return True

    def _begin_items(self, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item.errand, Call):
                self._start(self._call(item, item.errand))
            else:
                self._to_write.set()

    async def _offer_rest(self) -> None:
        """What lies in the log and was not offered, until that is nothing."""
        lanes = self._lanes
        assert lanes is not None
        while lanes.position < self._end:
            self._finished.clear()
            if not await self._persistently(lambda: self._offer_to(lanes, self._end)):
                await self._finished.wait()
        self._live = True

    async def _offer_to(self, lanes: Lanes, end: int) -> bool:
        """Whether all that the log has before `end` has been offered; else there are too many lanes."""
        async with aclosing(self._ports.read(self._partition, lanes.position, end)) as records:
            async for stored in records:
                if not self._offer(lanes, await self._left_of(stored)):
                    lanes.position = stored.offset
                    return False
                lanes.position = stored.offset + 1
        lanes.position = end
        return True

    def _refill(self, name: str) -> None:
        """Has a lane that is behind read the log, if that is worth while and it does not already."""
        lane = None if self._lanes is None else self._lanes.lanes.get(name)
        if lane is not None and lane.behind is not None and lane.has_much_room and name not in self._refilling:
            self._refilling.add(name)
            self._start(self._read_behind(name))

    async def _read_behind(self, name: str) -> None:
        lanes = self._lanes
        assert lanes is not None
        try:
            while name in lanes.lanes and lanes.lanes[name].behind is not None:
                if not await self._persistently(lambda: self._read_lane(lanes, name)):
                    return
        finally:
            self._refilling.discard(name)

    async def _read_lane(self, lanes: Lanes, name: str) -> bool:
        """Whether the lane has read all that had been offered when it began, and was not full before."""
        behind, end = lanes.lanes[name].behind, lanes.position
        assert behind is not None
        async with aclosing(self._ports.read(self._partition, behind[0], end)) as records:
            async for stored in records:
                taken, full = lanes.refill(name, await self._left_of(stored))
                self._begin_items(taken)
                if full:
                    return False
        lanes.read_to(name, end)
        self._finished.set()
        return True

    # --- Kafka ---

    async def _write_on(self) -> None:
        """Writes what stays in Kafka, in order, as many at a time as there are."""
        while True:
            self._to_write.clear()
            lane = None if self._lanes is None else self._lanes.lanes.get("")
            items = [] if lane is None else list(lane.todo.values())[:_BATCH_MAX]
            if not items:
                await self._to_write.wait()
                continue
            await self._write_items(items)
            self._finish(items)

    async def _write_items(self, items: Sequence[Item]) -> None:
        wanted = [(item, item.errand) for item in items if isinstance(item.errand, Write)]
        began = asyncio.get_running_loop().time()
        failures = await self._persistently(lambda: self._ports.write([write for _, write in wanted]))
        latency_ms = (asyncio.get_running_loop().time() - began) * 1000
        told: list[Write] = []
        given_up = [self._give_up(item, item.errand.task, item.errand.failed, 1, 0.0) for item in items if isinstance(item.errand, Undone)]
        for (item, write), failed in zip(wanted, failures, strict=True):
            if failed is None:
                self._performed[write.task.cause.composite.rule_id] += 1
                told.append(delivery(write.task, 1, None, retries=False, latency_ms=latency_ms, at=now()))
            else:
                given_up.append(self._give_up(item, write.task, failed, 1, latency_ms))
        await asyncio.gather(self._tell(*told), *given_up)

    # --- webhooks ---

    async def _call(self, item: Item, call: Call) -> None:
        attempt = 1
        while True:
            outcome, latency_ms = await self._ports.post(call)
            if isinstance(outcome, Delivered):
                self._performed[call.task.cause.composite.rule_id] += 1
                await self._tell(delivery(call.task, attempt, None, retries=False, latency_ms=latency_ms, at=now()))
                break
            if not outcome.retryable or attempt >= self._ports.attempts_max:
                await self._give_up(item, call.task, outcome, attempt, latency_ms)
                break
            await self._tell(delivery(call.task, attempt, outcome, retries=True, latency_ms=latency_ms, at=now()))
            await asyncio.sleep(delay_ms(call.task.key, attempt, self._ports.retry_ms, outcome.after_ms) / 1000)
            attempt += 1
        self._finish([item])

    async def _give_up(self, item: Item, task: Task, failed: Failed, attempts: int, latency_ms: float) -> None:
        """Tells it in three places: the composite among the dead letters, an event, and the deliveries."""
        self._given_up[task.cause.composite.rule_id] += 1
        _log.warning(
            "action.dead", rule=task.cause.composite.rule_id, action=task.action, index=task.index, composite=task.cause.composite.id,
            code=failed.code, message=failed.message, attempts=attempts,
        )  # fmt: skip
        await self._persistently(lambda: self._ports.bury(item.raw, task, failed, attempts))
        told = [delivery(task, attempts, failed, retries=False, latency_ms=latency_ms, at=now())]
        event = report(task, failed, attempts, now())
        await self._tell(*([event] if event is not None else []), *told)

    async def _tell(self, *writes: Write) -> None:
        for write, failed in zip(writes, await self._persistently(lambda: self._ports.write(writes)), strict=True):
            if failed is not None:
                _log.error("action.report-lost", type=write.record.type, key=write.task.key, code=failed.code, message=failed.message)

    # --- shared ---

    def _finish(self, items: Sequence[Item]) -> None:
        assert self._lanes is not None
        names = set()
        for item in items:
            self._lanes.finish(item)
            names.add(item.errand.target.origin if isinstance(item.errand, Call) else "")
        for name in names:
            self._refill(name)
        self._finished.set()

    async def _persistently(self, send: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """What Kafka does not take or give is asked for until it does: nothing is finished before it is told."""
        while True:
            try:
                return await send()
            except BackboneError as error:
                _log.warning("actions.waiting", partition=self._partition, code=error.code, message=error.message)
                await asyncio.sleep(_AGAIN_S)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)
