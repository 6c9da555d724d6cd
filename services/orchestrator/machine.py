"""The orchestrator as the log kernel runs it: inputs to drafts, drafts to decisions."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from services.orchestrator import (
    attempts,
    commands,
    conditions,
    continuation,
    effects,
    family,
    forking,
    heartbeats,
    inquiries,
    progress,
    telling,
    timers,
    triggering,
)
from services.orchestrator.definition import Definition
from services.orchestrator.draft import Draft
from services.orchestrator.evolve import evolve
from services.orchestrator.evolve_commands import monitors_of
from services.orchestrator.schema import schema_faults
from services.orchestrator.state import TERMINAL, Error, Execution, Parent
from services.orchestrator.store import DefinitionStore
from streams import limits, operations
from streams.errors import Defect, InvalidDocument, Refused
from streams.log.freeze import StateFormat
from streams.log.types import NOTHING, Decision, Due, Entry, Input, Received, Remembered, Send, View
from streams.records import Json, ModuleMessage, Record, WorkflowCommand, WorkflowTransition, from_micros
from streams.topics import COMMANDS, MESSAGES, RESPONSES, TRANSITIONS, WORKFLOW_SNAPSHOTS


class OrchestratorMachine:
    """`streams.log.types.Machine` over executions. `local_modules` are the modules whose machines share its host."""

    name = "workflow"
    log = TRANSITIONS
    snapshots = WORKFLOW_SNAPSHOTS
    inboxes: tuple[str, ...] = (COMMANDS, RESPONSES)
    source_logs: tuple[str, ...] = (MESSAGES,)
    states = StateFormat(Execution)

    def __init__(self, definitions: DefinitionStore, local_modules: Collection[str]) -> None:
        self.definitions = definitions
        self.local_modules = frozenset(local_modules)

    def decide(self, view: View[Execution], input: Input) -> Decision:
        """Events and effects that follow from a command, an answer of a module, or a timer."""
        if isinstance(input, Due):
            return self._timer(view, input)
        match input.record:
            case WorkflowCommand() as command:
                return self._commanded(view, command, input)
            case ModuleMessage(kind="response") as message if inquiries.is_for_modules(message):
                return Decision(effects=(inquiries.forwarded(message),))
            case ModuleMessage(kind="request", target_module=effects.MODULE, operation=operations.HEARTBEAT) as message:
                return self._beaten(view, message, input.time_us)
            case ModuleMessage(kind="request", target_module=effects.MODULE) as message:
                return self._asked(view, message, input.time_us)
            case ModuleMessage(kind="notification", operation=operations.MONITOR, execution_id=str()) as message:
                return self._monitored(view, message, input.time_us)
            case ModuleMessage(kind="response") as message:
                return self._answered(view, message, input.time_us)
            case ModuleMessage(kind="notification", operation=family.ACKNOWLEDGE, execution_id=str()) as message:
                return self._acknowledged(view, message, input.time_us)
            case _:
                return NOTHING

    def evolve(self, state: Execution | None, entry: Entry) -> Execution | None:
        """The execution after a transition."""
        return evolve(state, entry.event) if isinstance(entry.event, WorkflowTransition) else state

    def due(self, state: Execution) -> int | None:
        """When the execution's next timer is due."""
        return timers.due(state)

    def outstanding(self, state: Execution) -> Iterable[Send]:
        """What nobody has answered: requests of running attempts, children and forks, our end to a parent; and emitted events."""
        yield from effects.outstanding(state, self.local_modules)
        yield from family.outstanding(state)
        yield from telling.outstanding(state)

    def ended(self, state: Execution) -> int | None:
        """When the execution ended; only `retry` and `fork` are asked of it after that. Not before its family knows."""
        return state.ended_us if state.status in TERMINAL and family.is_settled(state) else None

    def rests(self, state: Execution, time_us: int) -> bool:
        """Never: an execution that lives waits for something."""
        return False

    def remember(self, entry: Entry) -> Iterable[Remembered]:
        """Nothing: repeats are recognised by the state."""
        return ()

    def concerns(self, record: Record) -> bool:
        """Whether a module's log event is an answer to a step."""
        return isinstance(record, ModuleMessage) and record.kind == "response" and record.execution_id is not None

    # --- inputs -------------------------------------------------------------------------------------------------------

    def _draft(self, state: Execution, now_us: int) -> Draft:
        definition = self.definitions.get(state.definition_hash)
        if definition is None:
            raise Defect(
                "definition.missing",
                f"The definition {state.workflow_id}@{state.definition_hash} of the execution {state.id} is not in the control topic.",
            )
        return self._draft_of(definition, state, now_us)

    def _draft_of(self, definition: Definition, state: Execution, now_us: int, events: list[WorkflowTransition] | None = None) -> Draft:
        return Draft(
            definition,
            state,
            now_us,
            local_modules=self.local_modules,
            known_modules=self.definitions.operations,
            find_workflow=self.definitions.latest,
            events=events,
        )

    def _timer(self, view: View[Execution], input: Due) -> Decision:
        state = view.state(input.aggregate_id)
        if state is None:
            return NOTHING
        draft = self._draft(state, input.time_us)
        if state.continuing is not None:
            continuation.go_on(draft)
        else:
            with continuation.Bounded(draft, fires_timers=True):
                timers.fire_due(draft)
        return draft.decision()

    def _answered(self, view: View[Execution], message: ModuleMessage, now_us: int) -> Decision:
        """As `_answer`; a child that answers is told that it is known, also when that is old news or nobody is there any more."""
        decision = self._answer(view, message, now_us)
        if not family.is_from_child(message):
            return decision
        return replace(decision, effects=(*decision.effects, family.acknowledge(message)))

    def _acknowledged(self, view: View[Execution], message: ModuleMessage, now_us: int) -> Decision:
        """Our parent knows how we ended, or a fork has begun."""
        state = view.state(message.execution_id or "")
        fork = message.data.get("fork") if isinstance(message.data, dict) else None
        if state is None or not family.expects(state, fork):
            return NOTHING
        draft = self._draft(state, now_us)
        draft.record("execution.acknowledged", {} if fork is None else {"fork": fork})
        return draft.decision()

    def _answer(self, view: View[Execution], message: ModuleMessage, now_us: int) -> Decision:
        """A module's answer: of the running attempt it counts, of an ended one it is recorded as late, a repeat is nothing."""
        state = view.state(message.execution_id or "")
        if state is None or message.step_id is None:
            return NOTHING
        step = state.step(message.step_id)
        if not 1 <= message.attempt <= step.attempt or message.attempt in step.answered:
            return NOTHING
        if message.causation_id != effects.request_id(state.id, message.step_id, message.attempt):
            return NOTHING  # not an answer to what we asked: the names agree by chance or by malice
        draft = self._draft(state, now_us)
        waits = effects.is_asking(step) or family.awaited(step) is not None
        if not waits or message.attempt != step.attempt:
            data = (
                {"status": message.status, "result": message.data}
                if message.status == "success"
                else {"status": "error", "error": _error(message).to_json()}
            )
            draft.record("step.answered_late", data, step=message.step_id, attempt=message.attempt)
            return draft.decision()
        with continuation.Bounded(draft):
            if message.status == "success":
                conditions.take_answer(draft, message.step_id, message.data)
            else:
                attempts.fail_attempt(draft, message.step_id, _error(message), answered=True)
            progress.settle(draft)
        return draft.decision()

    def _asked(self, view: View[Execution], message: ModuleMessage, now_us: int) -> Decision:
        """A built-in module's question changes nothing."""
        execution_id = message.data.get("execution_id") if isinstance(message.data, dict) else None
        state = view.state(execution_id) if isinstance(execution_id, str) else None
        told = inquiries.answer(self.definitions, state, message, now_us)
        return NOTHING if told is None else Decision(effects=(told,))

    def _beaten(self, view: View[Execution], message: ModuleMessage, now_us: int) -> Decision:
        """A process says that an attempt lives; it is told whether anybody waits for it, and what the heartbeat before told."""
        state = view.state(message.execution_id or "")
        step = heartbeats.of_running(state, message)
        told = heartbeats.answer(message, step, now_us)
        if state is None or step is None:
            return Decision(effects=(told,))
        draft = self._draft(state, now_us)
        draft.record(heartbeats.RECEIVED, heartbeats.told(message), step=message.step_id, attempt=message.attempt)
        draft.effects.append(told)
        return draft.decision()

    def _monitored(self, view: View[Execution], message: ModuleMessage, now_us: int) -> Decision:
        """From now on somebody is told what happens, and now how everything ended so far; of what is over that is all."""
        state = view.state(message.execution_id or "")
        wanted = monitors_of({"monitors": [message.data]})
        if state is None or not wanted or wanted[0] in state.monitors:
            return NOTHING
        if state.status in TERMINAL:
            return Decision(effects=(telling.so_far(state, wanted[0]),))
        draft = self._draft(state, now_us)
        draft.record("execution.monitored", {"module": wanted[0].module, "id": wanted[0].id})
        draft.effects.append(telling.so_far(draft.state, wanted[0]))
        return draft.decision()

    def _commanded(self, view: View[Execution], command: WorkflowCommand, input: Received) -> Decision:
        """As `_command`; a module that sent it is told what became of it, and one whose answer came too late that nobody waits."""
        state = view.state(command.execution_id)
        decision = self._command(view, command, input)
        more = [told for told in (inquiries.of_command(command, decision, state, input.time_us),) if told is not None]
        refused = any(event.type == "command.refused" for event in decision.events)
        if refused and state is not None and command.command == "answer" and command.source == telling.ANSWERED_BY:
            instance = str(command.data.get("step"))
            more.append(telling.closed(state, instance, state.step(instance), "answered already", {}, input.time_us))
        return replace(decision, effects=(*decision.effects, *more)) if more else decision

    def _command(self, view: View[Execution], command: WorkflowCommand, input: Received) -> Decision:
        state = view.state(command.execution_id)
        parent = family.parent_of(command)
        if state is not None and (command.command == "start" or command.id in state.commands):
            return self._repeated(command, state, parent, input.time_us)
        try:
            if command.command == "start":
                return self._start(command, parent, input.time_us)
            if state is None:
                return self._to_nobody(command, parent, input.time_us)
            if parent is not None and (state.status in TERMINAL or state.ending is not None):
                return self._repeated(command, state, parent, input.time_us)  # it has given us up while we ended
            draft = self._draft(state, input.time_us)
            if command.command == "fork":
                return self._fork(draft, command)
            with continuation.Bounded(draft):
                commands.apply(draft, command)
            return draft.decision()
        except Refused as error:
            told = [] if parent is None else [family.refused_outcome(command, parent, error, input.time_us)]
            if (source := family.source_of(command)) is not None:
                told.append(family.fork_known(command, source, from_micros(input.time_us)))
            depth = max(commands.depth_of(command.data), 0 if state is None else state.trigger_depth)
            return Decision(events=(commands.refusal(command, state, error, input.time_us),), effects=tuple(told), depth=depth)

    def _fork(self, draft: Draft, command: WorkflowCommand) -> Decision:
        data = command.data if isinstance(command.data, dict) else {}
        definition = self._wanted(command) if "definition" in data else draft.definition
        if "input" in data or definition is not draft.definition:
            _check_input(definition, data.get("input", draft.state.input))
        forking.fork(draft, definition, data, command.id, commands.who_of(data))
        return draft.decision()

    def _repeated(self, command: WorkflowCommand, state: Execution, parent: Parent | None, now_us: int) -> Decision:
        """A command that was carried out changes nothing.

        A parent that asks again is told the end, a fork's source that it is known, a client that starts it again that it is here.
        """
        if command.command == "start" and (told := family.here_already(command, state, from_micros(now_us))) is not None:
            return Decision(effects=(told,))
        source = family.source_of(command)
        if source is not None:
            # Also one that was here before: it stays as it is, and there is nothing more to start.
            return Decision(effects=(family.fork_known(command, source, from_micros(state.started_us)),))
        if parent is None or parent != state.parent or state.status not in TERMINAL:
            return NOTHING
        return Decision(effects=(family.outcome(state),))

    def _to_nobody(self, command: WorkflowCommand, parent: Parent | None, now_us: int) -> Decision:
        """A command to an execution that is not there. A child that is cancelled before it has begun ends as it begins.

        So a start that is still on its way finds it ended. Raises `Refused` (`execution.unknown`).
        """
        if parent is None or command.command != "cancel":
            raise Refused(
                "execution.unknown",
                f"There is no execution {command.execution_id!r}.",
                advice="One that ended longer ago than the deduplication window takes no commands; `mplp workflow show` has its history.",
            )
        definition = self._wanted(command)
        event, state = commands.started(command, definition, now_us, parent)
        draft = self._draft_of(definition, state, now_us, [event])
        with continuation.Bounded(draft):
            commands.apply(draft, command)
        return draft.decision()

    def _start(self, command: WorkflowCommand, parent: Parent | None, now_us: int) -> Decision:
        _check_id(command.execution_id)
        definition = self._wanted(command)
        command = triggering.triggered(command, definition)
        _check_input(definition, command.data.get("input", {}))
        event, state = commands.started(command, definition, now_us, parent)
        draft = self._draft_of(definition, state, now_us, [event])
        if (source := family.source_of(command)) is not None:
            forking.take_over(draft, source, command.data)
            draft.effects.append(family.fork_known(command, source, from_micros(now_us)))
        draft.changed.append((definition.steps, ""))
        with continuation.Bounded(draft):
            progress.settle(draft)
        return draft.decision()

    def _wanted(self, command: WorkflowCommand) -> Definition:
        """The definition that a start names or brings along. Raises `Refused`."""
        data = command.data if isinstance(command.data, dict) else {}
        try:
            return self._named(data)
        except InvalidDocument as error:
            raise commands.RefusedDocument(error.code, error.message, error.violations) from error

    def _named(self, data: dict[str, Any]) -> Definition:
        if "definition" in data:
            return self.definitions.admit(data["definition"])
        found = None
        if isinstance(data.get("definition_hash"), str):
            found = self.definitions.get(data["definition_hash"])
        elif isinstance(data.get("workflow"), str):
            version = data.get("version")
            found = self.definitions.latest(data["workflow"], version if isinstance(version, str) else None)
        else:
            raise Refused("command.invalid", "A start brings a `definition`, or names a `workflow` or a `definition_hash`.")
        if found is None:
            raise Refused("workflow.unknown", f"There is no workflow {data.get('definition_hash') or data.get('workflow')!r}.")
        return found


def _check_input(definition: Definition, input: Json) -> None:
    """Raises `Refused` (`input.invalid`) with pointers into the input."""
    if definition.input_schema is not None:
        faults = list(schema_faults(definition.input_schema, input, code="input"))
        if faults:
            raise commands.RefusedDocument("input.invalid", "The input does not fit the workflow's input-schema.", faults)


def _check_id(execution_id: str) -> None:
    if not execution_id or len(execution_id) > limits.ID_CHARACTERS_MAX or "/" in execution_id or not execution_id.isprintable():
        raise Refused("execution.id", f"An execution's id has 1 to {limits.ID_CHARACTERS_MAX} printable characters and no slash.")


def _error(message: ModuleMessage) -> Error:
    error = message.error
    if error is None:
        return Error(code="failed", message="The module gave no reason.")
    code, text = error.code[: limits.ID_CHARACTERS_MAX], error.message[: limits.ERROR_CHARACTERS_MAX]
    return Error(code=code, message=text, retryable=error.retryable)
