"""Virtual time and simulated processes: each process is an event loop of its own, and one scheduler runs them all.

A process is killed by never running its loop again: no `finally`, no cancellation, as `kill -9` does it. It is stopped by not
running its loop for a while: its memory stays, answers wait in its sockets, and it goes on as if no time had passed. Within a
process callbacks run in asyncio's order; which process runs next at one instant is the seed's choice. Time only moves when
nobody can run, so a run takes no longer than its work, and one seed always gives one history.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
import random
import time
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

Trace = Callable[[str, str], None]


@contextmanager
def clock_of(scheduler: Scheduler) -> Iterator[None]:
    """Makes the scheduler's time the wall clock for a while: what goes into records must not differ from run to run."""
    real = time.time_ns
    time.time_ns = lambda: scheduler.now_us * 1000
    try:
        yield
    finally:
        time.time_ns = real


class Life(Enum):
    """Whether a process runs."""

    RUNNING = "running"
    STOPPED = "stopped"  #: its memory is kept and it will go on (SIGSTOP)
    DEAD = "dead"  #: it will never run again (SIGKILL, or it has ended)


class Scheduler:
    """Virtual time in whole microseconds, and whose turn it is."""

    def __init__(self, seed: int, *, start_us: int) -> None:
        self.random = random.Random(seed)
        self.now_us = start_us
        self.steps = 0
        self.over = False  #: set when the run has ended and what is left is only put away
        self._agenda: list[tuple[int, int, ProcessLoop | None, Callable[[], object] | asyncio.TimerHandle]] = []
        self._count = 0
        self._processes = 0
        self._runnable: list[ProcessLoop] = []

    def count_process(self) -> int:
        """The number of a new process."""
        self._processes += 1
        return self._processes

    def at(self, delay_us: int, what: Callable[[], object]) -> None:
        """Lets something happen in the world (not within a process) `delay_us` from now."""
        self._count += 1
        heapq.heappush(self._agenda, (self.now_us + max(0, delay_us), self._count, None, what))

    def add_timer(self, loop: ProcessLoop, when_us: int, handle: asyncio.TimerHandle) -> None:
        """A timer of a process."""
        self._count += 1
        heapq.heappush(self._agenda, (max(when_us, self.now_us), self._count, loop, handle))

    def wake(self, loop: ProcessLoop) -> None:
        """A process has something to run."""
        if not loop.listed and loop.life is Life.RUNNING:
            loop.listed = True
            self._runnable.append(loop)

    def run_until(self, done: Callable[[], bool], *, limit_us: int, steps_max: int) -> bool:
        """Runs everything until `done()` (asked whenever time moves), at most to the instant `limit_us`. Whether it was done."""
        while True:
            self._run_processes(steps_max)
            if done():
                return True
            if not self._agenda or self._agenda[0][0] > limit_us:
                return False
            self._advance()

    def _run_processes(self, steps_max: int) -> None:
        runnable = self._runnable
        while runnable:
            index = self.random.randrange(len(runnable)) if len(runnable) > 1 else 0
            loop = runnable[index]
            loop.run_some(1 + int(self.random.random() * 8) if len(runnable) > 1 else 64)
            if self.steps > steps_max:
                raise RuntimeError(f"{steps_max} steps are not enough: {loop.name} does not come to rest")
            if not loop.ready or loop.life is not Life.RUNNING:
                loop.listed = False
                runnable.remove(loop)

    def _advance(self) -> None:
        """Moves to the next instant at which something happens, and lets all of it happen."""
        agenda = self._agenda
        self.now_us = instant = agenda[0][0]
        while agenda and agenda[0][0] <= instant:
            _, _, loop, what = heapq.heappop(agenda)
            if loop is not None:
                loop.timer_is_due(what)  # type: ignore[arg-type]
            else:
                what()  # type: ignore[operator]

    def put_away(self, loops: list[ProcessLoop]) -> None:
        """Ends every task that is left, dead processes' too, so that nothing is destroyed while it is pending."""
        self.over = True
        for loop in loops:
            loop.life = Life.RUNNING
            for _ in range(100):
                tasks = [task for task in loop.tasks if not task.done()]
                if not tasks:
                    break
                for task in tasks:
                    task.cancel()
                loop.run_some(100_000)
            else:
                raise RuntimeError(f"{loop.name} has tasks that refuse to be cancelled")
            loop.life = Life.DEAD


class ProcessLoop(asyncio.AbstractEventLoop):
    """The event loop of one simulated process: no sockets, no threads, time from the scheduler."""

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self.scheduler = scheduler
        self.name = name
        self.number = scheduler.count_process()  #: in order of their starts
        self.stopped_at_us = 0
        self.life = Life.RUNNING
        self.listed = False
        self.ready: deque[asyncio.Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []
        self.faults: list[BaseException] = []  #: what nobody caught
        self.steps_left: int | None = None  #: crash before the callback after that many; None: no crash planned
        self.on_crash: Callable[[], None] | None = None
        self._late: list[asyncio.TimerHandle] = []

    # --- life -------------------------------------------------------------------------------------------------------

    def run_some(self, count: int) -> None:
        """Runs at most `count` callbacks, as long as the process lives."""
        scheduler, ready = self.scheduler, self.ready
        previous = events._get_running_loop()
        events._set_running_loop(self)
        try:
            while ready and count and self.life is Life.RUNNING:
                if self.steps_left is not None and not scheduler.over:
                    if self.steps_left <= 0:
                        self.kill()
                        return
                    self.steps_left -= 1
                count -= 1
                scheduler.steps += 1
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
        finally:
            events._set_running_loop(previous)

    def kill(self) -> None:
        """SIGKILL: nothing of the process ever runs again."""
        self.life = Life.DEAD
        if self.on_crash is not None:
            self.on_crash()

    def stop_running(self) -> None:
        """SIGSTOP."""
        if self.life is Life.RUNNING:
            self.life = Life.STOPPED
            self.stopped_at_us = self.scheduler.now_us

    def go_on(self) -> None:
        """SIGCONT: answers that came meanwhile are read first, then the timers that went by are due, as asyncio does it."""
        if self.life is Life.STOPPED:
            self.life = Life.RUNNING
            self.ready.extend(self._late)
            self._late.clear()
            if self.ready:
                self.scheduler.wake(self)

    def timer_is_due(self, handle: asyncio.TimerHandle) -> None:
        """A timer's time has come; a stopped process sees it when it goes on."""
        if handle._cancelled or self.life is Life.DEAD:
            return
        if self.life is Life.STOPPED:
            self._late.append(handle)
            return
        self.ready.append(handle)
        self.scheduler.wake(self)

    # --- what asyncio asks of a loop --------------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds."""
        return self.scheduler.now_us / 1e6

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> asyncio.Handle:  # type: ignore[override]  # fewer promises than a real loop's
        """See `asyncio`."""
        handle = asyncio.Handle(callback, args, self, context)
        self.ready.append(handle)
        if not self.listed:
            self.scheduler.wake(self)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> asyncio.TimerHandle:  # type: ignore[override]  # fewer promises than a real loop's
        """See `asyncio`."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> asyncio.TimerHandle:  # type: ignore[override]  # fewer promises than a real loop's
        """See `asyncio`."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.scheduler.add_timer(self, math.ceil(when * 1e6), handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are skipped when their time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        """See `asyncio`."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        """See `asyncio`."""
        task = asyncio.Task(coro, loop=self, **options)
        self.tasks.append(task)
        if len(self.tasks) > 256:
            self.tasks = [each for each in self.tasks if not each.done()]
        return task

    def get_debug(self) -> bool:
        """Never."""
        return False

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.life is Life.RUNNING

    def is_closed(self) -> bool:
        """Whether the process is dead."""
        return self.life is Life.DEAD

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keeps what nobody caught: a run with such a fault has failed."""
        error = context.get("exception")
        if not self.scheduler.over:
            self.faults.append(error if isinstance(error, BaseException) else RuntimeError(str(context.get("message"))))
