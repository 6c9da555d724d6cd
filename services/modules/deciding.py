"""One request on its way to a decision: found, checked, decided by its operation, and answered. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, assert_never

from pydantic import ValidationError

from services.modules import answers
from services.modules.built_in import BuiltIn
from services.modules.emitting import event_of, fault_of_payload, following, is_heard, refused, to_caller
from services.modules.faults import refusal_of
from services.modules.gather import decide as gather
from services.modules.lookup import fitting
from services.modules.operation import Caller, Decided, Done, Follow, Listing, Operation, Outcome, Parameters, Pending, Refusal, Request
from services.modules.trace.collecting import collect
from streams.log.types import NOTHING, Decision, Send, View
from streams.records import ModuleMessage, SystemEvent, to_micros
from streams.topics import REQUESTS, home_of


def parameters_of(request: ModuleMessage) -> Any:
    """The parameters that a request carries."""
    return request.data


class Handling:
    """One request, at one moment. `outside`: the caller waits at the topic of responses."""

    __slots__ = ("_caller", "_modules", "_request", "_time_us", "_view")

    def __init__(self, modules: Mapping[str, BuiltIn], view: View[Any], request: ModuleMessage, time_us: int, outside: bool) -> None:
        self._modules = modules
        self._view = view
        self._request = request
        self._time_us = time_us
        self._caller = Caller.of(request, outside)

    def decision(self) -> Decision:
        """What follows from the request."""
        request = self._request
        remembered = self._view.recall(answers.memory_key(request.id))
        if remembered is not None:
            return Decision(effects=to_caller(self._caller, remembered, self._modules))
        unwritable = fault_of_payload(request.data)
        if unwritable is not None:
            # It may neither be kept nor sent on; that the request came is on record without it.
            self._request = replace(request, data={})
        found = unwritable or self._validated()
        target = found[1].target() if isinstance(found, tuple) else None
        home = home_of(target) if target else self._home_of_caller()
        if not self._view.is_local(home):
            if unwritable is not None:
                response = answers.response_event(self._request, unwritable, None, self._time_us)
                told = refused(request, self._time_us, unwritable.code, unwritable.message)
                return Decision(events=(told,), effects=to_caller(self._caller, answers.essentials(response), self._modules))
            return Decision(effects=(Send(topic=REQUESTS, key=home, record=request),))
        if request.deadline is not None and to_micros(request.deadline) < self._time_us:
            return self._refused(Refusal(code="deadline.passed", message="Nobody waits for the answer any more."), target, home)
        if isinstance(found, Refusal):
            return self._refused(found, target, home)
        return self._conclude(self._outcome(*found, target, home), target, home)

    def _outcome(self, operation: Operation, parameters: Parameters, target: str | None, home: str) -> Outcome:
        asked = Request(id=self._request.id, home=home, time_us=self._time_us, caller=self._caller)
        if operation.gathers and target is None and self._view.partitions > 1 and self._caller.source_module != gather.NAME:
            return gather.begin(self._view, operation, parameters, asked)
        outcome: Outcome = operation.decide(self._view, parameters, asked)
        return outcome

    def _conclude(self, outcome: Outcome, target: str | None, home: str) -> Decision:
        match outcome:
            case Refusal():
                return self._refused(outcome, target, home)
            case Done():
                return self._done(outcome, target, home)
            case Pending(events=()):
                return NOTHING
            case Pending():
                asked = answers.request_event(self._request, outcome.aggregate_id, self._time_us)
                events = self._events((*outcome.events, *collect(self._view, outcome.events, self._time_us)))
                unwritable = next((fault for event in events if (fault := fault_of_payload(event.data)) is not None), None)
                if unwritable is not None:
                    return self._refused(unwritable, target, home)
                return Decision(events=(asked, *events), effects=outcome.effects)
            case _:
                assert_never(outcome)

    def _validated(self) -> tuple[Operation, Parameters] | Refusal:
        module = self._modules.get(self._request.target_module or "")
        operation = None if module is None else module.operations.get(self._request.operation)
        if operation is None:
            named = f"{self._request.target_module}.{self._request.operation}"
            offered = "" if module is None else f" There are {', '.join(module.operations)}."
            return Refusal(code="operation.unknown", message=f"There is no operation {named}.{offered}")
        given = parameters_of(self._request)
        try:
            return operation, operation.parameters.model_validate(given)
        except ValidationError as error:
            return refusal_of(error, given, operation.parameters.parameter_names())

    def _home_of_caller(self) -> str:
        """Where an operation runs that is about no aggregate yet."""
        request = self._request
        return home_of(request.execution_id or request.subject or request.reply_to or request.id)

    def _done(self, done: Done, target: str | None, home: str) -> Decision:
        result = done.result.model_dump(mode="json", by_alias=True)
        if isinstance(done.result, Listing):
            result = fitting(result, type(done.result))
        events = self._events((*done.events, *collect(self._view, done.events, self._time_us)))
        for data in (result, *(event.data for event in events)):
            unwritable = fault_of_payload(data)
            if unwritable is not None:
                return self._refused(unwritable, target, home)
        told = following(self._view, "", Follow(answers=done.answers), self._time_us, None, self._modules)
        decision = self._answered(result, done.aggregate_id or f"{home}/requests", events, done.effects)
        return replace(decision, events=(*decision.events, *told.events), effects=(*decision.effects, *told.effects))

    def _events(self, decided: Iterable[Decided]) -> list[SystemEvent]:
        source = f"mplp/modules/{self._request.target_module}"
        return [event_of(each, source, self._time_us, self._request) for each in decided]

    def _refused(self, refusal: Refusal, target: str | None, home: str) -> Decision:
        known = target is not None and self._view.state(target) is not None
        return self._answered(refusal, target if known and target else f"{home}/requests", (), ())

    def _answered(
        self, answer: dict[str, Any] | Refusal, aggregate_id: str, events: Iterable[SystemEvent], effects: tuple[Send, ...]
    ) -> Decision:  # fmt: skip
        asked = answers.request_event(self._request, aggregate_id, self._time_us)
        response = answers.response_event(self._request, answer, aggregate_id, self._time_us)
        heard = is_heard(self._view, self._caller, self._modules)
        told = () if heard else to_caller(self._caller, answers.essentials(response), self._modules)
        return Decision(events=(asked, *events, response), effects=(*effects, *told))
