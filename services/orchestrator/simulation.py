"""A workflow run without servers: the real decide and evolve, a virtual clock, and modules that answer as a scenario says.

Nothing is performed and nobody waits: days pass in milliseconds. At one moment answers come first, then commands, then timers.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from typing import Any

import orjson

from services.orchestrator.definition import Definition
from services.orchestrator.definitions import validate
from services.orchestrator.machine import OrchestratorMachine
from services.orchestrator.scenario import Answer, Scenario
from services.orchestrator.schema import pointer_of
from services.orchestrator.state import Execution
from services.orchestrator.store import AnyModule, DefinitionStore
from services.orchestrator.view import fold
from streams.definitions import VERSION_MARK, unwrap
from streams.errors import InvalidDocument, InvalidInput, Violation
from streams.log.types import Entry, Send
from streams.matching.matchers import RecordView
from streams.matching.starts import Editions, StartIndex
from streams.records import (
    CommandName,
    Json,
    MessageError,
    ModuleMessage,
    Record,
    SystemEvent,
    WorkflowCommand,
    WorkflowTransition,
    derived_id,
    from_micros,
    iso,
    to_micros,
)  # fmt: skip
from streams.testing.machine_runner import MachineRunner
from streams.topics import COMMANDS, RESPONSES

#: Inputs after which a scenario is given up: a workflow that never ends by itself.
INPUTS_MAX = 100_000


class Simulation:
    """Runs one execution to where nothing more can happen."""

    def __init__(self, document: Json, scenario: Scenario, *, checked: bool = False, pinned: bool = False) -> None:
        """`checked`: after each input the fold of all events is compared with the live state.

        `pinned`: the definition belongs to an execution of an earlier version, whose checks it has passed.
        """
        store = DefinitionStore(AnyModule())
        self.definition: Definition = store.restore(document) if pinned else store.admit(document)
        self.scenario = scenario
        self.machine = OrchestratorMachine(store, AnyModule())
        start_us = to_micros(scenario.start)
        self.runner: MachineRunner[Execution] = MachineRunner(machine=self.machine, now_us=start_us, checked=checked)
        self.emitted: list[SystemEvent] = []
        self._calls: dict[str, int] = {}
        self._order = itertools.count()
        self._queue: list[tuple[int, int, int, str, Record]] = []
        self._publish(store, scenario.workflows)
        origin = {"input": scenario.input} if scenario.event is None else started_by(self.definition, scenario.event, start_us)
        self.command(start_us, "start", {"definition": document, **origin})
        for moment in scenario.at:
            for name, data in moment.commands():
                self.command(start_us + moment.time * 1000, name, data)

    def run(self) -> dict[str, Any]:
        """Runs to the end; the outcome. Raises `InvalidInput` (`scenario.endless`)."""
        for _ in range(INPUTS_MAX):
            if not self.step():
                return self.outcome()
        raise InvalidInput("scenario.endless", f"The workflow does not end: {INPUTS_MAX} inputs were handled.")

    def step(self) -> bool:
        """Handles the next input; False if nothing more can happen."""
        due = self.runner.next_due()
        if self._queue and (due is None or self._queue[0][0] <= due[0]):
            time_us, _, _, topic, record = heapq.heappop(self._queue)
            self.runner.receive(record, topic=topic, time_us=time_us)
        elif due is not None:
            self.runner.fire(due[1])
        else:
            return False
        for effect in self.runner.take_effects():
            self._perform(effect)
        return True

    def take_over(self, entries: Iterable[Entry]) -> None:
        """Goes on from a log as a new owner of the partition does: what it does not show as done is done again."""
        self._queue.clear()
        self.runner.take_over(entries)
        for state in list(self.runner.view.aggregates.values()):
            for effect in self.machine.outstanding(state):
                self._perform(effect)

    def outcome(self) -> dict[str, Any]:
        """What `workflow test` prints."""
        told: dict[str, list[WorkflowTransition]] = {self.scenario.id: []}
        for transition in self.runner.events():
            told.setdefault(transition.execution_id, []).append(transition)
        transitions = told.pop(self.scenario.id)
        view = fold(transitions)
        found: dict[str, Any] = {
            "status": view.get("status", "pending"),
            "output": view.get("output"),
            "duration_ms": view.get("duration_ms"),
            "compensated": view.get("compensated", False),
            "steps": self._steps(view.get("steps", {})),
            "events": [
                {"type": event.type, "severity": event.severity, "subject": event.subject, "data": event.data} for event in self.emitted
            ],
            "transitions": [_without_ids(event) for event in transitions],
        }
        if told:
            found["executions"] = {execution_id: _other(fold(story)) for execution_id, story in told.items()}
        return found | ({"error": view["error"]} if view.get("error") else {})

    def _publish(self, store: DefinitionStore, workflows: dict[str, dict[str, Any]]) -> None:
        """Publishes the workflows that steps name. Raises `InvalidDocument` (`scenario.invalid`) with the faults of all."""
        faults = []
        for workflow_id, given in workflows.items():
            document = {"id": workflow_id, "name": workflow_id, **unwrap(given)[0]}
            for fault in validate(document, AnyModule()):
                pointer = pointer_of(["workflows", workflow_id]) + fault.pointer
                faults.append(Violation(code=fault.code, pointer=pointer, message=fault.message))
            store.publish(workflow_id, document)
            if "version" in document:
                store.publish(f"{workflow_id}{VERSION_MARK}{document['version']}", document)
        if faults:
            raise InvalidDocument("scenario.invalid", f"The workflows of the scenario have {len(faults)} faults.", faults)

    def _steps(self, seen: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Every step that began, and those of the definition that did not."""
        fields = ("status", "attempts", "parameters", "result", "error")
        never = {"status": "pending", "attempts": 0, "parameters": None, "result": None, "error": None}
        names = [step_id for step_id, place in self.definition.places.items() if place.steps.depth == 0 and "~" not in step_id]
        listed = {name: seen.get(name, never) for name in names} | seen
        return {name: {field: step[field] for field in fields} for name, step in listed.items()}

    # --- the world around the workflow --------------------------------------------------------------------------------

    def _perform(self, effect: Send) -> None:
        match effect.record:
            case ModuleMessage(kind="request") as request:
                self._answer(request)
            case ModuleMessage(kind="response" | "notification") as message if effect.topic == RESPONSES:
                self._arrive(0, RESPONSES, message)
            case WorkflowCommand() as command:
                self._arrive(1, COMMANDS, command)
            case SystemEvent() as event:
                self.emitted.append(event)
            case _:
                pass

    def _arrive(self, rank: int, topic: str, record: Record) -> None:
        """What executions say to each other arrives at once."""
        heapq.heappush(self._queue, (self.runner.now_us, rank, next(self._order), topic, record))

    def answer_to(self, request: ModuleMessage) -> Answer | None:
        """What the module answers; None: nothing, ever. Here: what the scenario says, in order of calls."""
        name = f"{request.target_module}.{request.operation}"
        answers = self.scenario.modules.get(name) or [Answer()]
        number = self._calls.get(name, 0)
        self._calls[name] = number + 1
        return answers[min(number, len(answers) - 1)]

    def _answer(self, request: ModuleMessage) -> None:
        answer = self.answer_to(request)
        if answer is None:
            return
        time_us = self.runner.now_us + answer.after * 1000
        error = answer.error
        response = ModuleMessage(
            id=derived_id("response", request.id),
            type=f"{request.target_module}.responded",
            time=from_micros(time_us),
            data={} if error else answer.result,
            kind="response",
            source_module=request.target_module or "",
            target_module=request.source_module,
            operation=request.operation,
            execution_id=request.execution_id,
            step_id=request.step_id,
            attempt=request.attempt,
            causation_id=request.id,
            status="error" if error else "success",
            error=MessageError(code=error.code, message=error.message, retryable=error.retryable) if error else None,
        )
        heapq.heappush(self._queue, (time_us, 0, next(self._order), RESPONSES, response))

    def command(self, time_us: int, name: CommandName, data: Json, execution_id: str | None = None) -> None:
        """Has a command arrive at a time, microseconds since the epoch; at the execution of the scenario, or another one."""
        number = next(self._order)
        command = WorkflowCommand(
            id=derived_id("command", self.scenario.id, number),
            type=f"workflow.{name}",
            time=from_micros(time_us),
            execution_id=self.scenario.id if execution_id is None else execution_id,
            command=name,
            data=data,
        )
        heapq.heappush(self._queue, (time_us, 1, number, COMMANDS, command))


def _other(view: dict[str, Any]) -> dict[str, Any]:
    """A child or fork, in short."""
    fields = ("workflow_id", "status", "input", "output", "error", "duration_ms", "parent", "forked_from")
    steps = {name: {field: step[field] for field in ("status", "attempts", "result", "error")} for name, step in view["steps"].items()}
    return {**{field: view[field] for field in fields if field in view}, "steps": steps}


def _without_ids(event: WorkflowTransition) -> dict[str, Json]:
    return {
        "time": iso(event.time),
        "type": event.type,
        "step_id": event.step_id,
        "attempt": event.attempt,
        "status": event.status,
        "data": event.data,
    }


def started_by(definition: Definition, given: dict[str, Any], now_us: int) -> dict[str, Json]:
    """What a start by the first trigger that takes an event says. Raises `InvalidInput` (`scenario.event`): none does."""
    known = {"id": derived_id("event", definition.id), "source": "", "subject": "", "severity": "info", "tenant": "default", "data": {}}
    event = {**known, "type": "", "time": iso(from_micros(now_us)), "correlation_id": "", "causation_id": None, **given}
    editions = Editions()
    editions.publish(definition.document, 0)
    index = StartIndex(editions.all())
    plain = {**event, "time": now_us, "data": orjson.dumps(event["data"]).decode()}
    hits = [hit for topic in sorted(index.topics) for hit in index.hits(topic, RecordView(plain), 0)]
    if not hits:
        raise InvalidInput("scenario.event", "No trigger of the workflow takes this event.", pointer="/event")
    return {"trigger": min(hit.trigger for hit in hits), "event": event, "trigger_depth": 1}
