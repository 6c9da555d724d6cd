"""Operations over modules: calls in the order of their dependencies, each tried as often as it may be, and undone if need be. Pure.

A call is a request of the hub to a module, wherever that runs; its answer comes back to the hub. When every call has ended, the whole has:
`completed` if all succeeded, `failed` if none did, else `partial`; with `allOrNothing` what succeeded is undone, the last first, each as
often as it may be tried, and the whole is `compensated`. A message (`send`) is an operation with one call, whose answer is the call's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson

from services.modules.hub.drafting import ATTEMPT, Draft, request_id, request_of
from services.modules.hub.evolve import evolve
from services.modules.hub.operations import Coordinate
from services.modules.hub.operations import Send as SendParameters
from services.modules.hub.references import lost_references
from services.modules.hub.registry import registry_of
from services.modules.hub.state import NAME, Call, Exchange, ExchangeBegun
from services.modules.operation import NOTHING_FOLLOWS, Follow, Outcome, Pending, Refusal, Request, invalid
from services.modules.outgoing import asked_by
from streams.limits import ERROR_CHARACTERS_MAX, ID_CHARACTERS_MAX, PAYLOAD_BYTES_MAX
from streams.log.types import Due, Send, View
from streams.operations import CONTRACT
from streams.records import MessageError, ModuleMessage

#: Room that an event needs beside the result that it carries.
_ENVELOPE_BYTES = 64 * 1024


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
                undo_retries=each.retries if undo is None or undo.retries is None else undo.retries,
            )
        )
    circle = _circle(calls)
    if circle:
        return invalid(f"Calls depend on each other in a circle: {', '.join(circle)}.", "/calls")
    lost = next(lost_references(calls), None)
    if lost is not None:
        return invalid(*lost)
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
    draft = Draft(evolve(None, begun, exchange_id, request.time_us), request.time_us)
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
    call_id, _, number = part.rpartition(ATTEMPT)
    if not isinstance(state, Exchange):
        return NOTHING_FOLLOWS
    call = state.calls.get(call_id)
    if call is None or not number.isdecimal() or message.causation_id != request_id(state, call, int(number)):
        return NOTHING_FOLLOWS
    draft = Draft(state, time_us)
    result, error = message.data, message.error
    if call.status not in ("running", "compensating") or int(number) != call.attempt:
        # A late result that is too large is not kept: what undoes it does so without.
        draft.answered_late(call, int(number), message.status or "", None if _is_too_large(result) else result)
    else:
        if message.status == "success" and _is_too_large(result):
            error = MessageError(code="payload.too-large", message="The answer is too large to be passed on.")
        elif message.status != "success" and error is None:
            error = MessageError(code="failed", message="The module gave no reason.")
        if error is not None:
            error = replace(error, code=error.code[:ID_CHARACTERS_MAX], message=error.message[:ERROR_CHARACTERS_MAX])
        draft.told = result if message.status != "success" else None
        draft.answered(call, result, error)
        if message.status == "success" and error is not None:
            draft.answered_late(call, int(number), "success", None)  # it was done, though its result is not passed on
    draft.go_on()
    return draft.follow()


def _is_too_large(result: Any) -> bool:
    return len(orjson.dumps(result)) > PAYLOAD_BYTES_MAX - _ENVELOPE_BYTES


def due(state: Exchange) -> int | None:
    """When the next attempt begins or ends, or the whole does."""
    if state.ended_us is not None:
        return None
    moments = [call.due_us for call in state.calls.values() if call.due_us is not None]
    return min([*moments, *([state.deadline_us] if state.status == "running" else [])], default=None)


def fire(view: View[Any], state: Exchange, timer: Due) -> Follow:
    """Attempts end or begin; at the deadline everything that runs does."""
    draft = Draft(state, timer.time_us)
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
                draft.undo_failed(call, MessageError(code="module.silent", message=message, retryable=True))
            case "compensation_retrying" if is_due:
                draft.undo(call)
    draft.go_on()
    return draft.follow()


def outstanding(state: Exchange) -> Iterator[Send]:
    """Requests of attempts that were not answered."""
    for call in state.calls.values():
        if call.status in ("running", "compensating"):
            yield request_of(state, call)
