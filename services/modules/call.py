"""What an operation of a user's module knows of its call, and how it talks to the world while it runs.

A `Call` is what the author sees; its `Lifeline` is the other end, held by whoever runs the operation: a worker, or the test kit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import orjson
from pydantic_core import PydanticSerializationError, to_jsonable_python

from streams import limits
from streams.errors import InvalidInput
from streams.records import Json, ModuleMessage, SystemEvent, derived_id, now


class OperationCancelled(Exception):
    """Nobody waits for the operation any more; raised by `Call.heartbeat`. Clean up and let it pass."""


class Outlet(Protocol):
    """Where an operation's messages go."""

    async def publish(self, event: SystemEvent) -> None:
        """Returns when the event is in Kafka. Raises what `Bus.publish` does."""

    async def ask(self, request: ModuleMessage, timeout_s: float) -> Json:
        """The result of a request to another module. Raises what `Bus.call_module` does."""


class Lifeline:
    """The other end of a `Call`. All of it may be used by any thread."""

    def __init__(self, *, silence_ms: int | None = None, on_beat: Callable[[], None] | None = None) -> None:
        """`silence_ms`: how long the operation may be silent; None: it has no heartbeats. `on_beat` is called at each heartbeat."""
        self.silence_ms = silence_ms
        self.beats = 0  #: how often the operation said that it lives
        self.details: Json = None  #: what it told last
        self.thread: Future[Any] | None = None  #: where a plain function runs
        self._on_beat = on_beat
        self._cancelled = threading.Event()
        self._lock = threading.Lock()

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._cancelled.set()

    def beat(self, operation: str, details: Json) -> None:
        """See `Call.heartbeat`."""
        if self.silence_ms is None:
            advice = "Declare how long it may be silent: @module.operation(…, heartbeat_timeout=30)."
            raise InvalidInput("operation.heartbeat", f"{operation} has no heartbeats.", advice=advice)
        told = None if details is None else _json_of(operation, details)
        with self._lock:
            self.beats += 1
            if told is not None:
                self.details = told
        if self._on_beat is not None:
            self._on_beat()
        if self.is_cancelled:
            raise OperationCancelled(f"Nobody waits for {operation} any more.")


def _json_of(operation: str, details: Any) -> Json:
    try:
        told: Json = to_jsonable_python(details, by_alias=True)
        size = len(orjson.dumps(told))
    except (PydanticSerializationError, TypeError) as error:
        raise InvalidInput("heartbeat.invalid", f"The details of a heartbeat of {operation} are no JSON: {error}") from error
    if size > limits.HEARTBEAT_BYTES_MAX:
        raise InvalidInput(
            "heartbeat.invalid", f"The details of a heartbeat of {operation} have {size} bytes, not at most {limits.HEARTBEAT_BYTES_MAX}."
        )
    return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What an operation may know of its call beside its parameters, and what it may do while it runs."""

    request_id: str  #: the idempotency key: the same for every delivery of one request
    operation: str
    execution_id: str | None  #: None: not called by a workflow
    step_id: str | None
    attempt: int
    deadline: datetime | None  #: nobody waits for the answer after it
    correlation_id: str
    module: str = ""
    details: Json = None  #: what the latest heartbeat before told: of an earlier attempt, or of this one before a crash
    lifeline: Lifeline = field(default_factory=Lifeline, repr=False, compare=False)
    outlet: Outlet | None = field(default=None, repr=False, compare=False)
    clock: Callable[[], datetime] = field(default=now, repr=False, compare=False)
    _sent: list[str] = field(default_factory=list, repr=False, compare=False)

    def heartbeat(self, details: Any = None) -> None:
        """Says that the operation lives, and how far it is: `details` (anything that JSON has, a pydantic model, a dataclass).

        Cheap, and safe in threads: a worker tells the orchestrator at most three times per `heartbeat_timeout`. An operation that is silent
        for longer has failed by `timeout`; the next attempt finds the latest details in `Call.details`. Without details those before
        stay. Raises `OperationCancelled` when nobody waits any more (how a plain function learns it; an async one gets
        `asyncio.CancelledError`), and `InvalidInput` (`operation.heartbeat`: not declared; `heartbeat.invalid`: no JSON, or too large).
        """
        self.lifeline.beat(self.operation, details)

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the operation any more: its caller gave it up, its deadline has passed, or the process ends."""
        return self.lifeline.is_cancelled

    def time_left(self) -> timedelta | None:
        """How long somebody still waits for the answer; None: for ever."""
        return None if self.deadline is None else max(timedelta(), self.deadline - self.clock())

    async def publish(self, event: SystemEvent) -> SystemEvent:
        """Publishes an event as part of the call's story; returns it as it was sent.

        Its `correlation_id` and `causation_id` are the call's, and its id derives from the request and from how many were sent before it:
        when the request comes again, so do the same ids, and readers ignore what they have seen. Raises what `Bus.publish` does.
        """
        told = replace(
            event,
            id=self._next_id("event"),
            source=event.source or self._source,
            correlation_id=self.correlation_id,
            causation_id=self.request_id,
        )
        await self._outlet().publish(told)
        return told

    async def ask(self, module: str, operation: str, parameters: Mapping[str, Any] | None = None, *, timeout: float = 30.0) -> Json:
        """The result of another module's operation, waited for `timeout` seconds at most, and never beyond the deadline.

        What the request makes lives with the execution. A repeated request asks with the same id, so a built-in module answers it from its
        memory. Raises the error that the module answers with, and `Unavailable` (`module.silent`).
        """
        left = self.time_left()
        request = ModuleMessage(
            id=self._next_id("ask"),
            type=f"{module}.requested",
            source=self._source,
            subject=self.execution_id or self.request_id,
            correlation_id=self.correlation_id,
            causation_id=self.request_id,
            data=dict(parameters or {}),
            kind="request",
            source_module=self.module,
            target_module=module,
            operation=operation,
        )
        return await self._outlet().ask(request, timeout if left is None else min(timeout, left.total_seconds()))

    async def broadcast(self, type: str, data: Json = None, *, timeout: float = 30.0) -> Json:
        """Sends a message to all who subscribed to its type; returns when the hub has it, without waiting for them (`timeout` seconds).

        The answer names the message (`broadcastId`, for the hub's `report`). Raises what `ask` does.
        """
        given = {"type": type, "data": {} if data is None else data, "source": self.module, "timeout": round(timeout * 1000), "wait": False}
        return await self.ask("hub", "broadcast", given)

    @property
    def _source(self) -> str:
        return f"mplp/modules/{self.module}"

    def _next_id(self, kind: str) -> str:
        self._sent.append(kind)
        return derived_id(kind, self.request_id, len(self._sent))

    def _outlet(self) -> Outlet:
        if self.outlet is None:
            raise InvalidInput(
                "call.detached", "This call was made by hand: it leads nowhere.", advice="For tests: services.modules.testing."
            )
        return self.outlet


__all__ = ["Call", "Lifeline", "OperationCancelled", "Outlet"]
