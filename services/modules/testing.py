"""A kit that runs a user's module without servers: its operations are called as a worker would, under a virtual clock.

    kit = ModuleKit(module)
    called = kit.call("charge", Charge(amount=5))
    assert called.result == {"amount": 5}

Nothing is mocked but the world: parameters are checked, results made JSON, errors become what a caller sees, by the worker's own code.
An `asyncio.sleep` of a day takes no time. Plain functions are called directly, so `time.sleep` in them is real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from pydantic_core import to_jsonable_python

from services.modules.call import Lifeline
from services.modules.handling import carry_out, operation_of
from services.modules.operation import Refusal
from services.modules.user_module import Module
from services.modules.virtual_time import VirtualLoop, run_virtually
from streams.errors import InvalidInput, Unavailable
from streams.records import Json, ModuleMessage, SystemEvent, derived_id

#: completed: there is a result; failed: there is an error; cancelled: the caller gave up; expired: the deadline came first; silent: no
#: heartbeat for longer than `heartbeat_timeout`.
Outcome: TypeAlias = Literal["completed", "failed", "cancelled", "expired", "silent"]

#: How long an operation may take without a deadline, virtual seconds; and how long one that is cancelled.
PATIENCE_S = 7 * 24 * 3600.0


class OperationStuck(AssertionError):
    """The operation did not end: without a deadline within a week, or after it was cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error as a caller sees it."""

    code: str
    message: str
    retryable: bool = False
    pointer: str | None = None  #: JSON pointer to what is wrong in the parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A heartbeat: when it came (since the call began), and the details it told."""

    at: timedelta
    details: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """What became of a call."""

    outcome: Outcome
    request: ModuleMessage
    result: Json = None
    error: Failure | None = None
    heartbeats: tuple[Beat, ...] = ()
    details: Json = None  #: what the next attempt would be given
    published: tuple[SystemEvent, ...] = ()
    asked: tuple[ModuleMessage, ...] = ()  #: requests to other modules; a broadcast is one to the hub
    duration: timedelta = timedelta()  #: by the virtual clock

    def returned(self) -> Json:
        """The result. Raises `AssertionError` that tells what came instead."""
        if self.outcome != "completed":
            told = f"{self.error.code}: {self.error.message}" if self.error is not None else self.outcome
            raise AssertionError(f"{self.request.operation} gave no result but {told}")
        return self.result


class _Inline(Executor):
    """Calls functions at once, in the same thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  as an executor does: whoever waits gets it
            future.set_exception(error)
        return future


class _Tape:
    """`call.Outlet` that keeps what is sent, and answers as told."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = answers
        self.published: list[SystemEvent] = []
        self.asked: list[ModuleMessage] = []

    async def publish(self, event: SystemEvent) -> None:
        self.published.append(event)

    async def ask(self, request: ModuleMessage, timeout_s: float) -> Json:
        self.asked.append(request)
        name = f"{request.target_module}.{request.operation}"
        if name not in self._answers:
            await asyncio.sleep(timeout_s)
            raise Unavailable("module.silent", f"The module {request.target_module} did not answer within {timeout_s:g} s.")
        answer = self._answers[name]
        if callable(answer):
            answer = answer(request.data)
        if isinstance(answer, Exception):
            raise answer
        told: Json = to_jsonable_python(answer, by_alias=True)
        return told


class ModuleKit:
    """Calls the operations and listeners of one module. `start`: what the virtual clock shows when a call begins."""

    def __init__(self, module: Module, *, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.module = module
        self.start = start
        self._answers: dict[str, Any] = {"hub.broadcast": {"broadcastId": "hub/broadcast-1"}}
        self._calls = 0

    def answer(self, operation: str, answer: Any) -> None:
        """What `Call.ask` gets from `operation` (`plan.create-plan`): a value, an exception to raise, or a function of the parameters.

        An operation without an answer is silent.
        """
        self._answers[operation] = answer

    def call(
        self,
        operation: str,
        parameters: Any = None,
        *,
        timeout: float | None = None,
        cancel_after: float | None = None,
        cancel_at_heartbeat: int | None = None,
        details: Any = None,
        attempt: int = 1,
    ) -> Called:
        """Calls an operation as a step of a workflow does.

        `parameters`: what its model takes, as a model, dataclass or dict. `timeout`: seconds until the deadline. `cancel_after` (seconds)
        and `cancel_at_heartbeat` (its number, from 1; the way for plain functions): when the caller gives up. `details`: those of an
        earlier attempt. Raises `OperationStuck`.
        """
        self._calls += 1
        name = f"test-{self._calls}"
        request = ModuleMessage(
            id=derived_id("kit", self.module.name, name),
            type=f"{self.module.name}.requested",
            source="mplp/kit",
            subject=name,
            time=self.start,
            correlation_id=name,
            data={} if parameters is None else to_jsonable_python(parameters, by_alias=True),
            kind="request",
            source_module="workflow",
            target_module=self.module.name,
            operation=operation,
            execution_id=name,
            step_id=operation,
            attempt=attempt,
            reply_to=name,
            deadline=None if timeout is None else self.start + timedelta(seconds=timeout),
        )
        return self._run(request, details, cancel_after, cancel_at_heartbeat)

    def broadcast(self, type: str, data: Any = None) -> Called:
        """Gives a broadcast to the listener of its type; `completed`: it counts as received.

        Raises `InvalidInput` (`broadcast.unwanted`).
        """
        if self.module.listener(type) is None:
            raise InvalidInput("broadcast.unwanted", f"{self.module.name} listens to no {type}: it would not get it.")
        self._calls += 1
        request = ModuleMessage(
            id=derived_id("kit", self.module.name, f"broadcast-{self._calls}"),
            type=type,
            source="mplp/kit",
            subject=f"hub/broadcast-{self._calls}",
            time=self.start,
            correlation_id=f"test-{self._calls}",
            data={} if data is None else to_jsonable_python(data, by_alias=True),
            kind="broadcast",
            source_module="kit",
            target_module=self.module.name,
            operation=type,
            reply_to="hub",
        )
        return self._run(request, None, None, None)

    def again(self, called: Called) -> Called:
        """The same request once more, as after a crash: with the same id, and the details that were told before."""
        return self._run(called.request, called.details, None, None)

    def next_attempt(self, called: Called) -> Called:
        """The next attempt of the step, as after a failure: with an id of its own, and the details that were told before."""
        request = called.request
        attempt = request.attempt + 1
        return self._run(replace(request, id=derived_id("kit", request.id, attempt), attempt=attempt), called.details, None, None)

    def _run(self, request: ModuleMessage, details: Any, cancel_after: float | None, cancel_at_heartbeat: int | None) -> Called:
        return run_virtually(lambda loop: _Run(self, loop, request, details, cancel_at_heartbeat).run(cancel_after))

    @property
    def answers(self) -> Mapping[str, Any]:
        """What other modules answer."""
        return self._answers


class _Run:
    """One call."""

    def __init__(self, kit: ModuleKit, loop: VirtualLoop, request: ModuleMessage, details: Any, cancel_at_heartbeat: int | None) -> None:
        operation = operation_of(kit.module, request)
        self.kit = kit
        self.loop = loop
        self.request = request
        self.details: Json = to_jsonable_python(details, by_alias=True)
        self.silence_ms = None if operation is None else operation.silence_ms
        self.lifeline = Lifeline(silence_ms=self.silence_ms, on_beat=self.beaten)
        self.cancel_at = cancel_at_heartbeat
        self.beats: list[Beat] = []
        self.ended: Outcome | None = None  #: why it was ended from outside
        self.silence: asyncio.TimerHandle | None = None
        self.work: asyncio.Task[Json | Refusal] | None = None

    def beaten(self) -> None:
        self.beats.append(Beat(at=timedelta(seconds=self.loop.time()), details=self.lifeline.details))
        self.listen()
        if self.cancel_at is not None and len(self.beats) >= self.cancel_at:
            self.end("cancelled")

    def listen(self) -> None:
        """Counts silence from now."""
        if self.silence is not None:
            self.silence.cancel()
        if self.silence_ms is not None:
            self.silence = self.loop.call_later(self.silence_ms / 1000, self.end, "silent")

    def end(self, why: Outcome) -> None:
        if self.ended is None and self.work is not None and not self.work.done():
            self.ended = why
            self.lifeline.cancel()
            self.work.cancel()

    async def run(self, cancel_after: float | None) -> Called:
        tape = _Tape(self.kit.answers)
        work = carry_out(
            self.kit.module, self.request, _Inline(), lifeline=self.lifeline, details=self.details, outlet=tape, clock=self.clock
        )
        self.work = asyncio.create_task(work)
        if cancel_after is not None:
            self.loop.call_later(cancel_after, self.end, "cancelled")
        if self.request.deadline is not None:
            self.loop.call_later((self.request.deadline - self.kit.start).total_seconds(), self.end, "expired")
        self.listen()
        done, _ = await asyncio.wait([self.work], timeout=PATIENCE_S)
        if not done:
            raise OperationStuck(f"{self.request.operation} did not end" + (f" although it was {self.ended}." if self.ended else "."))
        if self.silence is not None:
            self.silence.cancel()
        called = Called(
            outcome=self.ended or "completed",
            request=self.request,
            heartbeats=tuple(self.beats),
            details=self.details if self.lifeline.details is None else self.lifeline.details,
            published=tuple(tape.published),
            asked=tuple(tape.asked),
            duration=timedelta(seconds=self.loop.time()),
        )
        if self.ended is not None:
            return called
        answer = self.work.result()
        if isinstance(answer, Refusal):
            failure = Failure(code=answer.code, message=answer.message, retryable=answer.retryable, pointer=answer.pointer)
            return replace(called, outcome="failed", error=failure)
        return replace(called, result=answer)

    def clock(self) -> datetime:
        return self.kit.start + timedelta(seconds=self.loop.time())


__all__ = ["Beat", "Called", "Failure", "ModuleKit", "OperationStuck"]
