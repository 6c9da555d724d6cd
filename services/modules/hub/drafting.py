"""How operations over modules go on: what follows from one input for one of them, and the requests that it sends. Pure.

What ends badly in a coordination that is all or nothing may have been done nevertheless: a module that did not answer in time may say so
later. Such a success is kept with its call (`Call.late`) until the whole is undone, and undone then; if the whole had ended before, it
is taken up again for that. Every attempt's late answer counts once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.modules.hub.evolve import evolve
from services.modules.hub.operations import CoordinationResult, SentResult
from services.modules.hub.references import resolved
from services.modules.hub.state import (
    CALL_LIFECYCLE,
    NAME,
    AnsweredLate,
    Call,
    CallMoved,
    CallStatus,
    Exchange,
    ExchangeMoved,
    ExchangeStatus,
    HubEvent,
)
from services.modules.operation import Answered, Decided, Follow, Refusal
from services.modules.outgoing import ask
from streams.errors import Violation
from streams.log.types import Send
from streams.records import Json, MessageError, derived_id

#: Delay before the n-th retry: `RETRY_US * 2 ** (n - 1)`, at most `RETRY_US_MAX`.
RETRY_US, RETRY_US_MAX = 200_000, 30_000_000
#: Of an attempt to undo a call that has no timeout.
UNDO_MS = 30_000
#: Between a call and its attempt, in a part.
ATTEMPT = "/"

_ENDED: frozenset[CallStatus] = frozenset({"succeeded", "failed", "timed_out", "skipped", "compensated", "uncompensated"})
_BADLY: frozenset[CallStatus] = frozenset({"failed", "timed_out", "skipped"})
_RETRYABLE = frozenset({"unavailable", "timeout"})
#: Calls of which nothing is known to be left, until a late answer says otherwise.
_UNDONE: frozenset[CallStatus] = frozenset({"failed", "timed_out", "compensated"})
_BEING_UNDONE: frozenset[CallStatus] = frozenset({"compensating", "compensation_retrying"})
#: Of which it is not known that they are undone, though that was tried.
_NOT_UNDONE: frozenset[CallStatus] = _BEING_UNDONE | {"uncompensated"}


def request_of(state: Exchange, call: Call) -> Send:
    """The request of a call's attempt, or of the attempt to undo it."""
    undo = call.status == "compensating"
    module, operation = (call.undo_module, call.undo_operation) if undo else (call.module, call.operation)
    parameters = resolved(call.undo_parameters if undo else call.parameters, state)
    return ask(
        NAME, state.exchange_id, f"{call.call_id}{ATTEMPT}{call.attempt}", module or "", operation or "", parameters,
        id=request_id(state, call, call.attempt), time_us=call.begun_us or state.begun_us, deadline_us=call.due_us or state.deadline_us,
        attempt=call.attempt, correlation_id=state.correlation_id, tenant=state.tenant,
    )  # fmt: skip


def request_id(state: Exchange, call: Call, attempt: int) -> str:
    """The id of that request: a successor that sends it again sends the same."""
    return derived_id("call", state.exchange_id, call.call_id, attempt)


def pause_before(retry: int) -> int:
    """Microseconds before the n-th retry, from 1."""
    return min(RETRY_US_MAX, RETRY_US << min(max(retry - 1, 0), 20))


class Draft:
    """What follows from one input for one exchange; each event is folded at once."""

    def __init__(self, state: Exchange, time_us: int) -> None:
        self.state = state
        self.time_us = time_us
        self.caller = state.caller
        self.events: list[HubEvent] = []
        self.sent: list[str] = []  #: calls that are to be made
        self.told: Json = None  #: what the module said beside its error, in the answer that this follows from

    def record(self, event: HubEvent) -> None:
        """Notes an event."""
        self.events.append(event)
        self.state = evolve(self.state, event, self.state.exchange_id, self.time_us)

    def move(self, call: Call, after: CallStatus, **more: Any) -> None:
        """Moves a call."""
        assert CALL_LIFECYCLE.refusal(call.status, after) is None, f"{call.status} → {after}"
        self.record(CallMoved(call_id=call.call_id, before=call.status, after=after, **more))

    def call(self, call: Call) -> None:
        """Begins an attempt."""
        try:
            resolved(call.parameters, self.state)
        except KeyError as missing:
            error = MessageError(code="reference.missing", message=f"{missing.args[0]} is not there.")
            if call.status == "waiting":
                self.move(call, "skipped", error=error)
                return
        due_us = None if call.timeout_ms is None else min(self.time_us + call.timeout_ms * 1000, self.state.deadline_us)
        self.move(call, "running", attempt=call.attempt + 1, due_us=due_us)
        self.sent.append(call.call_id)

    def answered(self, call: Call, result: Json, error: MessageError | None) -> None:
        """The attempt that was waited for has its answer."""
        if call.status == "compensating":
            if error is None:
                self.move(call, "compensated")
            else:
                self.undo_failed(call, error)
        elif error is None:
            self.move(call, "succeeded", result=result)
        else:
            self.ended(call, "failed", error, retry=error.retryable or error.code in _RETRYABLE)

    def answered_late(self, call: Call, attempt: int, status: str, result: Json) -> None:
        """An attempt that nobody waits for any more has its answer: it is on record, and what it did is not forgotten."""
        if attempt in call.answered_late:
            return
        succeeded, undo = status == "success", attempt > call.attempts
        owed = self.state.atomic and succeeded and not undo and self.state.status not in ("completed", "partial")
        self.record(AnsweredLate(call_id=call.call_id, attempt=attempt, status=status, owed=owed, result=result if owed else None))
        call = self.state.calls[call.call_id]
        if undo and succeeded and call.status in _NOT_UNDONE and attempt > call.attempt - call.undo_tries:
            self.move(call, "compensated")
            self._reopen()
        elif owed and call.status in _UNDONE:
            self._reopen()

    def _reopen(self) -> None:
        """What had ended is taken up again, to undo what is left."""
        if self.state.ended_us is not None:
            self.record(ExchangeMoved(before=self.state.status, after="compensating"))

    def ended(self, call: Call, status: CallStatus, error: MessageError, *, retry: bool) -> None:
        """An attempt has failed: it is tried again if it may be, and there is time."""
        pause_us = pause_before(call.attempt)
        if retry and call.status == "running" and call.attempt <= call.retries and self.time_us + pause_us < self.state.deadline_us:
            self.move(call, "retrying", due_us=self.time_us + pause_us, error=error)
        else:
            self.move(call, status, error=error)

    def undo(self, call: Call) -> None:
        """Begins an attempt to undo a call."""
        self.move(call, "compensating", attempt=call.attempt + 1, due_us=self.time_us + (call.timeout_ms or UNDO_MS) * 1000)
        call = self.state.calls[call.call_id]
        try:
            resolved(call.undo_parameters, self.state)
        except KeyError as missing:
            self.undo_failed(call, MessageError(code="reference.missing", message=f"{missing.args[0]} is not there."))
        else:
            self.sent.append(call.call_id)

    def undo_failed(self, call: Call, error: MessageError) -> None:
        """An attempt to undo a call has failed: it is tried again if it may be, also after the deadline of the whole."""
        if call.undo_tries <= call.undo_retries and (error.retryable or error.code in _RETRYABLE):
            self.move(call, "compensation_retrying", due_us=self.time_us + pause_before(call.undo_tries), error=error)
        else:
            self.move(call, "uncompensated", error=error)

    def go_on(self) -> None:
        """Begins what can begin, skips what cannot any more, and ends the whole when all has ended."""
        if self.state.status == "running":
            self._begin_ready()
        if self.state.status == "running" and all(call.status in _ENDED for call in self.state.calls.values()):
            self._conclude()
        if self.state.status == "compensating":
            self._undo()

    def _begin_ready(self) -> None:
        changed = True
        while changed:
            changed = False
            stopping = self.state.atomic and any(call.status in _BADLY for call in self.state.calls.values())
            for call in list(self.state.calls.values()):
                if call.status != "waiting":
                    continue
                before = [self.state.calls[each].status for each in call.depends_on]
                if stopping or any(status in _BADLY for status in before):
                    because = "another call has failed" if stopping else "what it depends on has failed"
                    self.move(call, "skipped", error=MessageError(code="skipped", message=f"Not begun: {because}."))
                    changed = True
                elif all(status == "succeeded" for status in before):
                    self.call(call)
                    changed = True

    def _conclude(self) -> None:
        calls = self.state.calls.values()
        good = sum(call.status == "succeeded" for call in calls)
        status: ExchangeStatus = "completed" if good == len(calls) else "partial" if good else "failed"
        if self.state.atomic and (status == "partial" or (status == "failed" and any(call.late for call in calls))):
            status = "compensating"
        self.record(ExchangeMoved(before=self.state.status, after=status))

    def _undo(self) -> None:
        """The next that is to be undone: the last that succeeded first."""
        while not any(call.status in _BEING_UNDONE for call in self.state.calls.values()):
            for call in self.state.calls.values():
                if call.late and call.status in _UNDONE:
                    self.move(call, "succeeded", result=call.late[0])
            left = [call for call in self.state.calls.values() if call.status == "succeeded" and call.undo_operation is not None]
            if not left:
                stays = any(call.status in ("succeeded", "uncompensated") for call in self.state.calls.values())
                self.record(ExchangeMoved(before=self.state.status, after="failed" if stays else "compensated"))
                return
            last = max(left, key=lambda call: (call.begun_us or 0, list(self.state.calls).index(call.call_id)))
            self.undo(last)

    def follow(self) -> Follow:
        """All of it."""
        state = self.state
        decided = tuple(Decided(aggregate_id=state.exchange_id, event=event, correlation_id=state.correlation_id) for event in self.events)
        effects = tuple(request_of(state, state.calls[call_id]) for call_id in self.sent)
        if state.ended_us is None or self.caller is None:
            return Follow(events=decided, effects=effects)
        return Follow(events=decided, effects=effects, answers=(Answered(
            caller=self.caller, aggregate_id=state.exchange_id, answer=_answer(state, self.told)
        ),))  # fmt: skip


def _answer(state: Exchange, told: Json) -> Json | Refusal:
    if state.kind == "coordinate":
        return CoordinationResult.of(state).model_dump(mode="json", by_alias=True)
    call = next(iter(state.calls.values()))
    if call.error is not None:
        pointer, faults = _below_parameters(told)
        return Refusal(
            code=call.error.code, message=call.error.message, pointer=pointer, faults=faults, retryable=call.error.retryable
        )  # fmt: skip
    sent = SentResult(message_id=state.exchange_id, module=call.module, operation=call.operation, result=call.result)
    return sent.model_dump(mode="json", by_alias=True)


def _below_parameters(told: Json) -> tuple[str | None, tuple[Violation, ...]]:
    """Where in the parameters of `send` lies what a module refuses in those that it was sent."""
    if not isinstance(told, Mapping):
        return None, ()
    pointer, listed = told.get("pointer"), told.get("faults")
    faults = tuple(
        Violation(code=str(each.get("code")), pointer=f"/parameters{each.get('pointer') or ''}", message=str(each.get("message")))
        for each in (listed if isinstance(listed, Sequence) and not isinstance(listed, str) else ())
        if isinstance(each, Mapping)
    )
    return (f"/parameters{pointer}" if isinstance(pointer, str) else None), faults
