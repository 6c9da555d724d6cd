"""The machine of the built-in modules: requests in; the request, what happened, and the response out, as one decision. Pure.

Theory of operation. A request has one home: that of the aggregate which its parameters name, else the one it came with
(execution id, subject, caller). Where that home is not local the request is sent on, once, and nothing is decided. Where it
is, three kinds of records go into the log together: the request, the module's events, the response. So whatever was answered
was also done, and whatever was done was answered. The answer to a request is remembered under the request's id: a repeat
decides nothing and gets the same answer again.

Request and response belong to the aggregate that they are about; if there is none (a list, a refusal of an unknown id) to
`<home>/requests`, which has no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, assert_never

from pydantic import ValidationError

from services.modules import answers
from services.modules.catalogue import MODULES
from services.modules.faults import refusal_of
from services.modules.operation import BuiltIn, Decided, Done, Operation, Parameters, Refusal, Request, adapter, event_data, types_of
from services.modules.schedule import decide as schedule
from services.modules.schedule.state import ScheduleEvent, Schedules
from services.modules.states import STATES, ModuleState
from streams.codec.payload import payload_text
from streams.errors import BackboneError
from streams.log.types import NOTHING, Decision, Due, Entry, Input, Received, Remembered, Send, View
from streams.records import ModuleMessage, Record, SystemEvent, from_micros, to_micros
from streams.topics import MESSAGES, MODULE_SNAPSHOTS, REQUESTS, RESPONSES, home_of

#: End of the name on the broker of the inbox that callers outside of the host write to, whatever its prefix.
_INBOX_SUFFIX = REQUESTS.removeprefix("mplp")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fold:
    """How events of one type are folded."""

    event_class: type[Any]
    module: BuiltIn


_FOLDS: Mapping[str, _Fold] = {
    event_type: _Fold(event_class=event_class, module=module)
    for module in (*MODULES.values(), schedule.MODULE)
    for event_class in module.events
    for event_type in types_of(event_class)
}


class ModulesMachine:
    """`streams.log.types.Machine` over the aggregates of all built-in modules."""

    name = "modules"
    log = MESSAGES
    snapshots = MODULE_SNAPSHOTS
    inboxes: tuple[str, ...] = (REQUESTS,)
    source_logs: tuple[str, ...] = ()
    states = STATES

    def decide(self, view: View[ModuleState], input: Input) -> Decision:
        """See `Machine.decide`."""
        match input:
            case Due(aggregate_id=aggregate_id):
                state = view.state(aggregate_id)
                return self._scheduled(state, schedule.fire(state, input), input.time_us) if isinstance(state, Schedules) else NOTHING
            case Received(record=ModuleMessage(kind="notification", target_module="schedule") as message):
                return self._notified(view, message, input.time_us)
            case Received(record=ModuleMessage(kind="request") as request):
                outside = input.position is not None and input.position.topic.endswith(_INBOX_SUFFIX)
                return _Handling(view, request, input.time_us, outside).decision()
            case Received(record=record):
                return _no_request(record, input.time_us)
            case _:
                assert_never(input)

    def _notified(self, view: View[ModuleState], message: ModuleMessage, time_us: int) -> Decision:
        workflow_id = message.data.get("workflow") if isinstance(message.data, dict) else None
        if not isinstance(workflow_id, str) or not view.is_local(home_of(workflow_id)):
            return _no_request(message, time_us)
        state = view.state(schedule.aggregate_of(workflow_id))
        known = state if isinstance(state, Schedules) else None
        return self._scheduled(known or Schedules(workflow_id=workflow_id, order=-1), schedule.take(known, message, time_us), time_us)

    def _scheduled(self, state: Schedules, decided: Iterable[ScheduleEvent], time_us: int) -> Decision:
        events, effects = [], []
        after: Schedules | None = state
        aggregate_id = schedule.aggregate_of(state.workflow_id)
        for event in decided:
            known = () if after is None else after.starting
            after = schedule.MODULE.evolve(after, event, aggregate_id, time_us)
            begun = () if after is None else tuple(each for each in after.starting if each not in known)
            effects += [send for each in begun for send in schedule.starts(state.workflow_id, each)]
            events.append(
                SystemEvent(
                    id="",
                    type=event.TYPE,
                    source="mplp/schedules",
                    subject=state.workflow_id,
                    time=from_micros(time_us),
                    correlation_id=state.workflow_id,
                    data=event_data(event),
                    aggregate_id=aggregate_id,
                )
            )
        return Decision(events=tuple(events), effects=tuple(effects))

    def evolve(self, state: ModuleState | None, entry: Entry) -> ModuleState | None:
        """See `Machine.evolve`: requests and responses change nothing, nor do events that this version does not know."""
        event = entry.event
        fold = _FOLDS.get(event.type) if isinstance(event, SystemEvent) else None
        if fold is None or event.aggregate_id is None:
            return state
        domain_event = adapter(fold.event_class).validate_python(event.data)
        after: ModuleState | None = fold.module.evolve(state, domain_event, event.aggregate_id, to_micros(event.time))
        return after

    def due(self, state: ModuleState) -> int | None:
        """See `Machine.due`: schedules have timers."""
        return schedule.due(state) if isinstance(state, Schedules) else None

    def outstanding(self, state: ModuleState) -> Iterable[Send]:
        """See `Machine.outstanding`: starts of schedules. A caller that got no answer repeats its request."""
        return schedule.outstanding(state) if isinstance(state, Schedules) else ()

    def ended(self, state: ModuleState) -> int | None:
        """See `Machine.ended`: what is listed stays in memory, whatever its state."""
        return None

    def remember(self, entry: Entry) -> Iterable[Remembered]:
        """See `Machine.remember`: the answer to each request."""
        event = entry.event
        if isinstance(event, ModuleMessage) and event.kind == "response" and event.causation_id is not None:
            yield Remembered(
                key=answers.memory_key(event.causation_id),
                value=answers.essentials(event),
                expires_us=answers.remembered_until(event),
            )

    def concerns(self, record: Record) -> bool:
        """See `Machine.concerns`: no other machine's log is read."""
        return False


def parameters_of(request: ModuleMessage) -> Any:
    """The parameters that a request carries."""
    return request.data


class _Handling:
    """One request on its way to a decision."""

    __slots__ = ("_outside", "_request", "_time_us", "_view")

    def __init__(self, view: View[ModuleState], request: ModuleMessage, time_us: int, outside: bool) -> None:
        self._view = view
        self._request = request
        self._time_us = time_us
        self._outside = outside  #: whether the caller waits at the topic of responses

    def decision(self) -> Decision:
        request = self._request
        remembered = self._view.recall(answers.memory_key(request.id))
        if remembered is not None:
            return Decision(effects=self._send(remembered))
        unwritable = _fault_of_payload(request.data)
        if unwritable is not None:
            # It may neither be kept nor sent on; that the request came is on record without it.
            self._request = replace(request, data={})
        found = unwritable or self._validated()
        target = found[1].target() if isinstance(found, tuple) else None
        home = home_of(target) if target else self._home_of_caller()
        if not self._view.is_local(home):
            if unwritable is not None:
                response = answers.response_event(self._request, unwritable, None, self._time_us)
                refused = _refused(request, self._time_us, unwritable.code, unwritable.message)
                return Decision(events=(refused,), effects=self._send(answers.essentials(response)))
            return Decision(effects=(Send(topic=REQUESTS, key=home, record=request),))
        if request.deadline is not None and to_micros(request.deadline) < self._time_us:
            return self._refused(Refusal(code="deadline.passed", message="Nobody waits for the answer any more."), target, home)
        if isinstance(found, Refusal):
            return self._refused(found, target, home)
        operation, parameters = found
        outcome = operation.decide(self._view, parameters, Request(id=request.id, home=home, time_us=self._time_us))
        if isinstance(outcome, Refusal):
            return self._refused(outcome, target, home)
        return self._done(outcome, target, home)

    def _validated(self) -> tuple[Operation, Parameters] | Refusal:
        module = MODULES.get(self._request.target_module or "")
        operation = None if module is None else module.operations.get(self._request.operation)
        if operation is None:
            named = f"{self._request.target_module}.{self._request.operation}"
            return Refusal(code="operation.unknown", message=f"There is no operation {named}.")
        given = parameters_of(self._request)
        try:
            return operation, operation.parameters.model_validate(given)
        except ValidationError as error:
            return refusal_of(error, given)

    def _home_of_caller(self) -> str:
        """Where an operation runs that is about no aggregate yet."""
        request = self._request
        return home_of(request.execution_id or request.subject or request.reply_to or request.id)

    def _done(self, done: Done, target: str | None, home: str) -> Decision:
        result = done.result.model_dump(mode="json", by_alias=True)
        events = [self._event(decided) for decided in done.events]
        for data in (result, *(event.data for event in events)):
            unwritable = _fault_of_payload(data)
            if unwritable is not None:
                return self._refused(unwritable, target, home)
        return self._answered(result, done.aggregate_id or f"{home}/requests", events)

    def _refused(self, refusal: Refusal, target: str | None, home: str) -> Decision:
        known = target is not None and self._view.state(target) is not None
        return self._answered(refusal, target if known and target else f"{home}/requests", ())

    def _answered(self, answer: dict[str, Any] | Refusal, aggregate_id: str, events: Iterable[SystemEvent]) -> Decision:
        asked = answers.request_event(self._request, aggregate_id, self._time_us)
        response = answers.response_event(self._request, answer, aggregate_id, self._time_us)
        is_heard = not self._outside and self._request.reply_to is not None and self._view.is_local(self._request.reply_to)
        effects = () if is_heard else self._send(answers.essentials(response))
        return Decision(events=(asked, *events, response), effects=effects)

    def _send(self, remembered: str) -> tuple[Send, ...]:
        reply_to = self._request.reply_to
        if reply_to is None:
            return ()
        response = answers.response_to_caller(remembered)
        return (Send(topic=RESPONSES, key=reply_to, record=response, hand_over=not self._outside),)

    def _event(self, decided: Decided) -> SystemEvent:
        return SystemEvent(
            id="",
            type=decided.event.TYPE,
            source=f"mplp/modules/{self._request.target_module}",
            subject=decided.subject or decided.aggregate_id,
            time=from_micros(self._time_us),
            tenant=self._request.tenant,
            correlation_id=self._request.correlation_id,
            causation_id=self._request.id,
            data=event_data(decided.event),
            aggregate_id=decided.aggregate_id,
        )


def _fault_of_payload(data: Any) -> Refusal | None:
    """Why `data` cannot be a record's payload; None: it can."""
    try:
        payload_text(data)
    except BackboneError as error:
        return Refusal(code=error.code, message=error.message, pointer="")
    except (TypeError, ValueError) as error:
        return Refusal(code="invalid", message=f"This is no JSON: {error}.", pointer="")
    return None


def _no_request(record: Record, time_us: int) -> Decision:
    """What lies in the inbox of requests without being one: it changes nothing, but it is on record."""
    kind = record.kind if isinstance(record, ModuleMessage) else type(record).__name__
    return Decision(events=(_refused(record, time_us, "message.no-request", f"Modules take requests, not {kind}."),))


def _refused(record: Record, time_us: int, code: str, message: str) -> SystemEvent:
    """A record that belongs to no aggregate here, and why nothing was done about it."""
    return SystemEvent(
        id="",
        type="message.refused",
        source="mplp/modules",
        subject=record.subject or record.id,
        time=from_micros(time_us),
        tenant=record.tenant,
        correlation_id=record.correlation_id,
        causation_id=record.id,
        severity="warning",
        data={"code": code, "message": message},
        sequence=0,
    )
