"""Operations over modules: calls in the order of their dependencies, each tried as often as it may be, and undone if need be. Pure.

A call is a request of the hub to a module, wherever that runs; its answer comes back to the hub. When every call has ended, the whole has:
`completed` if all succeeded, `failed` if none did, else `partial`; with `allOrNothing` what succeeded is undone, the last first, and the
whole is `compensated`. A message (`send`) is an operation with one call, whose answer is the call's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from services.modules.hub.evolve import evolve
from services.modules.hub.operations import Coordinate, CoordinationResult, SentResult
from services.modules.hub.operations import Send as SendParameters
from services.modules.hub.registry import registry_of
from services.modules.hub.state import (
    CALL_LIFECYCLE,
    NAME,
    AnsweredLate,
    Call,
    CallMoved,
    CallStatus,
    Exchange,
    ExchangeBegun,
    ExchangeMoved,
    ExchangeStatus,
    HubEvent,
)
from services.modules.operation import NOTHING_FOLLOWS, Answered, Decided, Follow, Outcome, Pending, Refusal, Request, invalid
from services.modules.outgoing import ask, asked_by
from streams.limits import PAYLOAD_BYTES_MAX
from streams.log.types import Due, Send, View
from streams.operations import CONTRACT
from streams.records import Json, MessageError, ModuleMessage, derived_id

#: Delay before the n-th retry: `RETRY_US * 2 ** (n - 1)`, at most `RETRY_US_MAX`.
RETRY_US, RETRY_US_MAX = 200_000, 30_000_000
#: Between a call and its attempt, in a part.
_ATTEMPT = "/"
#: Room that an event needs beside the result that it carries.
_ENVELOPE_BYTES = 64 * 1024

_REFERENCE = re.compile(r"\$\{([^{}]+)\}")
_ENDED: frozenset[CallStatus] = frozenset({"succeeded", "failed", "timed_out", "skipped", "compensated", "uncompensated"})
_BADLY: frozenset[CallStatus] = frozenset({"failed", "timed_out", "skipped"})
_RETRYABLE = frozenset({"unavailable", "timeout"})


def coordinate(view: View[Any], parameters: Coordinate, request: Request) -> Outcome:
    """Has several modules do their parts of one operation; answered when all have ended, with what became of each."""
    calls: list[Call] = []
    for index, each in enumerate(parameters.calls):
        depends_on = tuple(each.depends_on)
        if parameters.mode == "sequence" and calls:
            depends_on = (calls[-1].call_id,)
        undo = each.compensate
        refused = _refusal(view, each.module, each.operation, f"/calls/{index}") or (
            _refusal(view, undo.module or each.module, undo.operation, f"/calls/{index}/compensate") if undo is not None else None
        )
        if refused is not None:
            return refused
        calls.append(
            Call(
                call_id=each.name,
                module=each.module,
                operation=each.operation,
                parameters=each.parameters,
                depends_on=depends_on,
                retries=each.retries,
                timeout_ms=each.timeout,
                undo_module=None if undo is None else undo.module or each.module,
                undo_operation=None if undo is None else undo.operation,
                undo_parameters=None if undo is None else undo.parameters,
            )
        )
    circle = _circle(calls)
    if circle:
        return invalid(f"Calls depend on each other in a circle: {', '.join(circle)}.", "/calls")
    return _begin(view, request, "coordinate", parameters.name, tuple(calls), parameters.all_or_nothing, parameters.timeout)


def send(view: View[Any], parameters: SendParameters, request: Request) -> Outcome:
    """Sends a request to a module; answered with its answer, or that there was none in time."""
    refused = _refusal(view, parameters.module, parameters.operation, "")
    if refused is not None:
        return refused
    name = f"{parameters.module}.{parameters.operation}"
    call = Call(
        call_id=name, module=parameters.module, operation=parameters.operation, parameters=parameters.parameters, retries=parameters.retries
    )
    return _begin(view, request, "send", name, (call,), False, parameters.timeout)


def _begin(view: View[Any], request: Request, kind: Any, name: str, calls: tuple[Call, ...], atomic: bool, timeout_ms: int) -> Outcome:
    exchange_id = request.new_id(kind)
    if view.state(exchange_id) is not None:
        return Pending(aggregate_id=exchange_id)
    deadline_us = request.time_us + timeout_ms * 1000
    begun = ExchangeBegun(name=name, kind=kind, calls=calls, atomic=atomic, deadline_us=deadline_us, caller=request.caller)
    draft = _Draft(evolve(None, begun, exchange_id, request.time_us), request.time_us)
    draft.events.append(begun)
    draft.go_on()
    follow = draft.follow()
    return Pending(aggregate_id=exchange_id, events=follow.events, effects=follow.effects)


def _refusal(view: View[Any], module: str, operation: str, pointer: str) -> Refusal | None:
    """Why a module cannot be asked for an operation."""
    if module == NAME:
        return invalid("The hub does not call itself.", f"{pointer}/module")
    registered = registry_of(view).modules.get(module)
    operations = CONTRACT.get(module) if registered is None else registered.operations
    if operations is None:
        return Refusal(code="module.unknown", message=f"There is no module {module!r}.", pointer=f"{pointer}/module")
    if operation not in operations:
        return Refusal(code="operation.unknown", message=f"There is no operation {module}.{operation}.", pointer=f"{pointer}/operation")
    return None


def _circle(calls: list[Call]) -> list[str]:
    """Calls that can never begin."""
    left = {call.call_id: set(call.depends_on) for call in calls}
    while ready := [name for name, waiting in left.items() if not waiting & left.keys()]:
        for name in ready:
            del left[name]
    return list(left)


# --- what happens -------------------------------------------------------------------------------------------------------


def take(view: View[Any], message: ModuleMessage, time_us: int) -> Follow:
    """A module has answered."""
    exchange_id, part = asked_by(message)
    state = view.state(exchange_id)
    call_id, _, number = part.rpartition(_ATTEMPT)
    if not isinstance(state, Exchange):
        return NOTHING_FOLLOWS
    call = state.calls.get(call_id)
    if call is None or not number.isdecimal() or message.causation_id != _request_id(state, call, int(number)):
        return NOTHING_FOLLOWS
    if call.status not in ("running", "compensating") or int(number) != call.attempt:
        late = AnsweredLate(call_id=call_id, attempt=int(number), status=message.status or "")
        return Follow(events=(Decided(aggregate_id=exchange_id, event=late, correlation_id=state.correlation_id),))
    draft = _Draft(state, time_us)
    result, error = message.data, message.error
    if message.status == "success" and len(orjson.dumps(result)) > PAYLOAD_BYTES_MAX - _ENVELOPE_BYTES:
        error = MessageError(code="payload.too-large", message="The answer is too large to be passed on.")
    elif message.status != "success" and error is None:
        error = MessageError(code="failed", message="The module gave no reason.")
    draft.answered(call, result, error)
    draft.go_on()
    return draft.follow()


def due(state: Exchange) -> int | None:
    """When the next attempt begins or ends, or the whole does."""
    if state.ended_us is not None:
        return None
    moments = [call.due_us for call in state.calls.values() if call.due_us is not None]
    return min([*moments, *([state.deadline_us] if state.status == "running" else [])], default=None)


def fire(view: View[Any], state: Exchange, timer: Due) -> Follow:
    """Attempts end or begin; at the deadline everything that runs does."""
    draft = _Draft(state, timer.time_us)
    over = state.status == "running" and state.deadline_us <= timer.time_us
    for call in state.calls.values():
        is_due = call.due_us is not None and call.due_us <= timer.time_us
        match call.status:
            case "running" | "retrying" if over or (call.status == "running" and is_due):
                message = f"{call.module} did not answer in time."
                draft.ended(call, "timed_out", MessageError(code="module.silent", message=message, retryable=True), retry=not over)
            case "retrying" if is_due:
                draft.call(call)
            case "waiting" if over:
                draft.move(call, "skipped", error=MessageError(code="timeout", message="The time was over before it could begin."))
            case "compensating" if is_due:
                message = f"{call.undo_module} did not answer in time."
                draft.move(call, "uncompensated", error=MessageError(code="module.silent", message=message, retryable=True))
    draft.go_on()
    return draft.follow()


def outstanding(state: Exchange) -> Iterator[Send]:
    """Requests of attempts that were not answered."""
    for call in state.calls.values():
        if call.status in ("running", "compensating"):
            yield _request(state, call)


def _request(state: Exchange, call: Call) -> Send:
    undo = call.status == "compensating"
    module, operation = (call.undo_module, call.undo_operation) if undo else (call.module, call.operation)
    parameters = _resolved(call.undo_parameters if undo else call.parameters, state)
    return ask(
        NAME, state.exchange_id, f"{call.call_id}{_ATTEMPT}{call.attempt}", module or "", operation or "", parameters,
        id=_request_id(state, call, call.attempt), time_us=call.begun_us or state.begun_us, deadline_us=call.due_us or state.deadline_us,
        attempt=call.attempt, correlation_id=state.correlation_id, tenant=state.tenant,
    )  # fmt: skip


def _request_id(state: Exchange, call: Call, attempt: int) -> str:
    return derived_id("call", state.exchange_id, call.call_id, attempt)


class _Draft:
    """What follows from one input for one exchange; each event is folded at once."""

    def __init__(self, state: Exchange, time_us: int) -> None:
        self.state = state
        self.time_us = time_us
        self.caller = state.caller
        self.events: list[HubEvent] = []
        self.sent: list[str] = []  #: calls that are to be made

    def record(self, event: HubEvent) -> None:
        self.events.append(event)
        self.state = evolve(self.state, event, self.state.exchange_id, self.time_us)

    def move(self, call: Call, after: CallStatus, **more: Any) -> None:
        assert CALL_LIFECYCLE.refusal(call.status, after) is None, f"{call.status} → {after}"
        self.record(CallMoved(call_id=call.call_id, before=call.status, after=after, **more))

    def call(self, call: Call) -> None:
        """Begins an attempt."""
        try:
            _resolved(call.parameters, self.state)
        except KeyError as missing:
            error = MessageError(code="reference.missing", message=f"{missing.args[0]} is not there.")
            if call.status == "waiting":
                self.move(call, "skipped", error=error)
                return
        due_us = None if call.timeout_ms is None else min(self.time_us + call.timeout_ms * 1000, self.state.deadline_us)
        self.move(call, "running", attempt=call.attempt + 1, due_us=due_us)
        self.sent.append(call.call_id)

    def answered(self, call: Call, result: Json, error: MessageError | None) -> None:
        if call.status == "compensating":
            self.move(call, "compensated" if error is None else "uncompensated", error=error)
        elif error is None:
            self.move(call, "succeeded", result=result)
        else:
            self.ended(call, "failed", error, retry=error.retryable or error.code in _RETRYABLE)

    def ended(self, call: Call, status: CallStatus, error: MessageError, *, retry: bool) -> None:
        """An attempt has failed: it is tried again if it may be, and there is time."""
        pause_us = min(RETRY_US_MAX, RETRY_US * 2 ** min(max(call.attempt - 1, 0), 20))
        if retry and call.status == "running" and call.attempt <= call.retries and self.time_us + pause_us < self.state.deadline_us:
            self.move(call, "retrying", due_us=self.time_us + pause_us, error=error)
        else:
            self.move(call, status, error=error)

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
        if self.state.atomic and status == "partial":
            status = "compensating"
        self.record(ExchangeMoved(before=self.state.status, after=status))

    def _undo(self) -> None:
        """The next that is to be undone: the last that succeeded first."""
        while not any(call.status == "compensating" for call in self.state.calls.values()):
            left = [call for call in self.state.calls.values() if call.status == "succeeded" and call.undo_operation is not None]
            if not left:
                stays = any(call.status in ("succeeded", "uncompensated") for call in self.state.calls.values())
                self.record(ExchangeMoved(before=self.state.status, after="failed" if stays else "compensated"))
                return
            last = max(left, key=lambda call: (call.begun_us or 0, list(self.state.calls).index(call.call_id)))
            self.move(last, "compensating", attempt=last.attempt + 1, due_us=self.time_us + (last.timeout_ms or 30_000) * 1000)
            try:
                _resolved(last.undo_parameters, self.state)
            except KeyError as missing:
                error = MessageError(code="reference.missing", message=f"{missing.args[0]} is not there.")
                self.move(self.state.calls[last.call_id], "uncompensated", error=error)
            else:
                self.sent.append(last.call_id)

    def follow(self) -> Follow:
        """All of it."""
        state = self.state
        decided = tuple(Decided(aggregate_id=state.exchange_id, event=event, correlation_id=state.correlation_id) for event in self.events)
        effects = tuple(_request(state, state.calls[call_id]) for call_id in self.sent)
        if state.ended_us is None or self.caller is None:
            return Follow(events=decided, effects=effects)
        return Follow(events=decided, effects=effects, answers=(Answered(
            caller=self.caller, aggregate_id=state.exchange_id, answer=_answer(state)
        ),))  # fmt: skip


def _answer(state: Exchange) -> Json | Refusal:
    if state.kind == "coordinate":
        return CoordinationResult.of(state).model_dump(mode="json", by_alias=True)
    call = next(iter(state.calls.values()))
    if call.error is not None:
        return Refusal(code=call.error.code, message=call.error.message, retryable=call.error.retryable)
    sent = SentResult(message_id=state.exchange_id, module=call.module, operation=call.operation, result=call.result)
    return sent.model_dump(mode="json", by_alias=True)


# --- references -----------------------------------------------------------------------------------------------------------


def _resolved(value: Json, state: Exchange) -> Json:
    """`value` with `${call.result.path}` replaced: a text that is one reference keeps the value's type. Raises `KeyError`."""
    if isinstance(value, str):
        whole = _REFERENCE.fullmatch(value)
        if whole is not None:
            return _found(whole.group(1), state)
        return _REFERENCE.sub(lambda match: _text(_found(match.group(1), state)), value)
    if isinstance(value, list):
        return [_resolved(each, state) for each in value]
    if isinstance(value, Mapping):
        return {name: _resolved(each, state) for name, each in value.items()}
    return value


def _text(value: Json) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _found(reference: str, state: Exchange) -> Json:
    call_id, mark, path = reference.partition(".result")
    call = state.calls.get(call_id)
    if call is None or not mark or call.status not in ("succeeded", "compensating", "compensated", "uncompensated"):
        raise KeyError(reference)
    here = call.result
    for part in (each for each in re.split(r"[.\[\]]", path) if each):
        if isinstance(here, Mapping) and part in here:
            here = here[part]
        elif isinstance(here, list) and part.isdecimal() and int(part) < len(here):
            here = here[int(part)]
        else:
            raise KeyError(reference)
    return here
