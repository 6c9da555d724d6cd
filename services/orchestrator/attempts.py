"""One step: how it begins, and what follows when an attempt ends: completion, another attempt, a fallback, failure.

Nothing here starts another step; lists that have changed are noted in the draft and looked at by `progress`.
"""

from __future__ import annotations

from collections import deque
from typing import Any, assert_never

from services.orchestrator import children, conditions, effects, family
from services.orchestrator.cancelling import cancel_list
from services.orchestrator.checks import parse_instant
from services.orchestrator.definition import (
    Approval,
    AwaitSignal,
    ChildWorkflow,
    Conditional,
    CustomCondition,
    Emit,
    Fallback,
    Foreach,
    Loop,
    ModuleOperation,
    Parallel,
    Step,
    StepList,
    Transform,
    Wait,
    lists_of,
)  # fmt: skip
from services.orchestrator.draft import Draft, is_whole, too_large
from services.orchestrator.faults import StepError
from services.orchestrator.references import ReferenceMissing
from services.orchestrator.retries import delay_ms, is_retryable
from services.orchestrator.state import ENDED, Error
from streams import limits
from streams.durations import parse_duration_ms
from streams.errors import InvalidInput
from streams.matching.expressions import ExpressionFailed
from streams.records import Json, iso, to_micros

#: Fallbacks that may still be taken when the list around the step has failed.
_QUIET_ACTIONS = frozenset({"skip", "use-value", "fail"})


def start(draft: Draft, step: Step, suffix: str) -> None:
    """Begins an attempt of a step."""
    instance = step.id + suffix
    try:
        _perform(draft, step, instance, suffix)
    except (ReferenceMissing, ExpressionFailed, StepError) as fault:
        if isinstance(fault, StepError):
            error = fault.error
        else:
            code = "reference.missing" if isinstance(fault, ReferenceMissing) else "expression.failed"
            error = Error(code=code, message=str(fault))
        if draft.state.step(instance).status != "running":
            _begin(draft, step, instance, None)
        fail_attempt(draft, instance, error)


def _begin(draft: Draft, step: Step, instance: str, parameters: Json, **more: Any) -> None:
    """Records `step.started`; time-outs stand in it, so that a replay never depends on defaults."""
    before = draft.state.step(instance)
    data: dict[str, Any] = {"parameters": parameters, **more}
    if before.begun_us is None and step.timeout_ms is not None:
        data["timeout_ms"] = step.timeout_ms
    if step.attempt_timeout_ms is not None:
        data.setdefault("attempt_timeout_ms", step.attempt_timeout_ms)
    if step.resources is not None:
        data["resources"] = step.resources
    draft.record("step.started", data, step=instance, attempt=before.attempt + 1)


def _perform(draft: Draft, step: Step, instance: str, suffix: str) -> None:
    scope = draft.scope(step, suffix)
    match step.action:
        case ModuleOperation() as action:
            _ask(draft, step, instance, action, suffix)
        case Parallel(steps=inner):
            _begin(draft, step, instance, {})
            draft.changed.append((inner, suffix))
        case Conditional() as action:
            _branch(draft, step, instance, action, suffix)
        case Foreach() as action:
            items = scope.resolve(action.items)
            if not isinstance(items, list):
                raise StepError("invalid", "The items of a foreach are a list.")
            _check_size(items)
            _begin(draft, step, instance, {"items": items}, turns=len(items))
            draft.changed.append((action.steps, suffix))
        case Loop(steps=turn):
            _begin(draft, step, instance, {}, turns=None)
            draft.changed.append((turn, suffix))
        case Wait() as action:
            _wait(draft, step, instance, action, suffix)
        case Approval() as action:
            title, assignees = scope.resolve(action.title), scope.resolve(action.assignees)
            asked = {"title": title, "assignees": assignees, "choices": list(action.choices)}
            _check_size(asked)
            _begin(draft, step, instance, asked)
            _ask_people(draft, instance, title, list(action.choices), assignees, action.deadline_ms)
        case AwaitSignal(name=name):
            _await_signal(draft, step, instance, scope.resolve(name))
        case ChildWorkflow() as action:
            input = scope.resolve(action.input)
            _check_size(input)
            child = children.call(draft, action, input)
            _begin(draft, step, instance, input, child=child.to_json())
            state = draft.state.step(instance)
            draft.effects.append(family.start_command(draft.state, instance, state, state.children[-1]))
        case Emit(event=template):
            event = scope.resolve(template)
            _check_size(event)
            fault = effects.event_fault(event)
            if fault is not None:
                raise StepError("invalid", fault)
            _begin(draft, step, instance, event, emits=True)
            draft.effects.append(effects.emission(draft.state, draft.state.emitted[-1]))
            complete(draft, instance, None)
        case Transform(value=expression):
            _begin(draft, step, instance, {})
            complete(draft, instance, draft.scope(step, suffix).evaluate(expression))
        case _:
            assert_never(step.action)


def _ask(draft: Draft, step: Step, instance: str, action: ModuleOperation, suffix: str) -> None:
    _request(draft, step, instance, draft.scope(step, suffix).resolve(action.parameters), action.module, action.operation)


def _request(draft: Draft, step: Step, instance: str, parameters: Json, module: str, operation: str, **more: Any) -> None:
    _check_size(parameters)
    if module not in draft.known_modules:
        _begin(draft, step, instance, parameters)
        raise StepError("module.unknown", f"There is no module {module!r}.")
    _begin(draft, step, instance, parameters, module=module, operation=operation, **more)
    state = draft.state
    draft.effects.append(effects.request(state, instance, state.step(instance), draft.local_modules))


def _check_size(value: Json) -> None:
    if too_large(value):
        raise StepError(
            "payload.too-large", f"The payload is larger than {limits.PAYLOAD_BYTES_MAX - limits.ENVELOPE_BYTES} bytes of JSON."
        )


def _branch(draft: Draft, step: Step, instance: str, action: Conditional, suffix: str) -> None:
    condition = action.condition
    if isinstance(condition, CustomCondition):
        parameters = conditions.question(draft, step, condition, suffix)
        patience_ms = conditions.patience_ms(draft, step)
        _request(draft, step, instance, parameters, condition.module, condition.operation, attempt_timeout_ms=patience_ms)
        return
    taken = draft.scope(step, suffix).holds(condition)
    _begin(draft, step, instance, {}, branch="then" if taken else "else" if action.otherwise is not None else "")
    enter_branch(draft, instance)


def enter_branch(draft: Draft, instance: str) -> None:
    """The condition is known and the branch on record: the other one is skipped, the chosen one may begin."""
    place, suffix = draft.place(instance)
    action = place.step.action
    assert isinstance(action, Conditional), "only a conditional has branches"
    taken = draft.state.step(instance).branch == "then"
    chosen, other = (action.then, action.otherwise) if taken else (action.otherwise, action.then)
    if other is not None:
        with draft.resumable(do="branch", step=instance):
            skip_list(draft, other, suffix)
    if chosen is None:
        complete(draft, instance, None)
    else:
        draft.changed.append((chosen, suffix))


def skip_list(draft: Draft, steps: StepList, suffix: str) -> None:
    """Records the steps of a branch that is not taken as skipped, at any depth."""
    for step in steps.steps:
        if draft.state.step(step.id + suffix).status not in ENDED:
            draft.check_room()
            draft.record_step("step.skipped", step.id + suffix, {"reason": "branch"})
        match step.action:
            case Parallel(steps=inner):
                skip_list(draft, inner, suffix)
            case Conditional(then=then, otherwise=otherwise):
                skip_list(draft, then, suffix)
                if otherwise is not None:
                    skip_list(draft, otherwise, suffix)
            case _:
                pass


def _wait(draft: Draft, step: Step, instance: str, action: Wait, suffix: str) -> None:
    scope = draft.scope(step, suffix)
    if action.until is not None:
        given = scope.resolve(action.until)
        instant = parse_instant(given) if isinstance(given, str) else None
        if instant is None:
            raise StepError("invalid", f"{str(given)[:80]!r} is not a time with offset (RFC 3339).")
        due, movable, shown = to_micros(instant), False, iso(instant)
    else:
        given = scope.resolve(action.duration)
        try:
            due = draft.now_us + parse_duration_ms(given) * 1000
        except InvalidInput as error:
            raise StepError("invalid", error.message) from error
        movable, shown = True, given
    _begin(draft, step, instance, {"until" if action.until is not None else "for": shown})
    if due <= draft.now_us:
        complete(draft, instance, None)
        return
    draft.record_step("timer.set", instance, {"due_us": due, "movable": movable})
    draft.record_step("step.waiting", instance, {"for": "timer"})


def _await_signal(draft: Draft, step: Step, instance: str, name: Json) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= limits.NAME_CHARACTERS_MAX:
        raise StepError("invalid", f"A signal has a name of 1 to {limits.NAME_CHARACTERS_MAX} characters.")
    _begin(draft, step, instance, {"name": name}, signal=name)
    signal = next((kept for kept in draft.state.signals if kept.name == name), None)
    if signal is None:
        draft.record_step("step.waiting", instance, {"for": "signal", "name": name})
    else:
        complete(draft, instance, signal.data, signal=name)


def _ask_people(
    draft: Draft, instance: str, title: Json, choices: list[str], assignees: Json, deadline_ms: int | None, **more: Any
) -> None:
    data: dict[str, Any] = {"title": title, "choices": choices, "assignees": assignees, **more}
    if deadline_ms is not None:
        data["deadline_ms"] = deadline_ms
    draft.record_step("approval.requested", instance, data)
    draft.record_step("step.waiting", instance, {"for": "approval"})


def complete(
    draft: Draft, instance: str, result: Json, *, gathered: dict[str, Any] | None = None, answered: bool = False, signal: str | None = None
) -> None:
    """The step has ended well with `result` (of a container: with the recipe that makes it). `signal`: it took one that was kept."""
    if too_large(result):
        fail_attempt(draft, instance, _too_large("result"), answered=answered)
        return
    if draft.state.results_bytes > limits.EXECUTION_STATE_BYTES_MAX - limits.PAYLOAD_BYTES_MAX and result is not None:
        fail_attempt(draft, instance, _too_large("execution's state"), answered=answered)
        return
    data: dict[str, Any] = {"gathered": gathered} if gathered is not None else {"result": result}
    if signal is not None:
        data["signal"] = signal
    draft.record_step("step.completed", instance, data | _flag(answered))
    draft.touch(instance)


def _too_large(what: str) -> Error:
    return Error(code="payload.too-large", message=f"The {what} would be larger than its limit.")


def _flag(answered: bool) -> dict[str, Any]:
    return {"answered": True} if answered else {}


def fail_attempt(
    draft: Draft, instance: str, error: Error, *, answered: bool = False, timed_out: bool = False, retriable: bool = True
) -> None:
    """An attempt has failed: tries again, falls back, or fails the step.

    `timed_out`: the step ends as `timed_out` if it ends; `retriable` is false where the step as a whole has failed.
    """
    place, suffix = draft.place(instance)
    step, state = place.step, draft.state.step(instance)
    if not answered:
        children.give_up(draft, instance)
    stopping = draft.is_stopping(place.steps, suffix)
    retry = state.attempt - state.attempts_before
    policy = step.retry
    if policy is not None and retriable and not stopping and retry <= policy.max_retries and is_retryable(policy, error):
        delay = delay_ms(policy, retry, f"{draft.state.id}/{instance}/{state.attempt}")
        data: dict[str, Any] = {"delay_ms": delay, "error": error.to_json(), **_flag(answered)}
        inside = inside_of(draft, step, suffix)
        draft.record_step("step.retried", instance, data | ({"reset": inside} if inside else {}))
        return
    with draft.resumable(do="fail", step=instance, error=error.to_json(), answered=answered, timed_out=timed_out, retriable=retriable):
        for steps, inner in draft.inner_lists(step, state, suffix):
            cancel_list(draft, steps, inner, "failure")  # it may have failed before it began them
    fallback = None if state.fallback is not None else _fallback(draft, step, suffix, error, stopping)
    if fallback is None:
        fail(draft, instance, error, timed_out=timed_out, answered=answered)
    else:
        _apply(draft, instance, step, fallback, error, suffix, timed_out=timed_out, answered=answered)


def inside_of(draft: Draft, step: Step, suffix: str) -> list[str]:
    """Instances inside a container that something has happened to: what a new attempt begins anew."""
    return inside_lists(draft, lists_of(step), suffix)


def inside_lists(draft: Draft, lists: tuple[StepList, ...], suffix: str) -> list[str]:
    """Instances in these lists, at any depth, that something has happened to."""
    found: list[str] = []
    waiting = deque((steps, suffix) for steps in lists)
    while waiting:
        steps, inside = waiting.popleft()
        if is_whole(steps, inside):
            turns = draft.state.step(draft.owner_of(steps, inside) or "").turns
            waiting.extend((steps, f"{inside}[{number}]") for number in range(0 if turns is None else turns.ever))
            continue
        for step in steps.steps:
            if step.id + inside in draft.state.steps:
                found.append(step.id + inside)
            waiting.extend((inner, inside) for inner in lists_of(step))
    return found


def fail(draft: Draft, instance: str, error: Error, *, timed_out: bool = False, answered: bool = False) -> None:
    """The step has failed for good."""
    draft.record_step("step.timed_out" if timed_out else "step.failed", instance, {"error": error.to_json(), **_flag(answered)})
    draft.touch(instance)


def _fallback(draft: Draft, step: Step, suffix: str, error: Error, stopping: bool) -> Fallback | None:
    """The first fallback whose condition holds, among those that may be taken."""
    for fallback in step.fallbacks:
        if (not stopping or fallback.action in _QUIET_ACTIONS) and _holds(draft, step, fallback, suffix, error):
            return fallback
    return None


def _holds(draft: Draft, step: Step, fallback: Fallback, suffix: str, error: Error) -> bool:
    if fallback.expression is None:
        return fallback.condition == "error" or fallback.condition == error.code
    values = {**draft.scope(step, suffix).variables(fallback.expression), "error": error.to_json()}
    try:
        return fallback.expression.holds(values)
    except ExpressionFailed:
        return False


def _apply(
    draft: Draft, instance: str, step: Step, fallback: Fallback, error: Error, suffix: str, *, timed_out: bool, answered: bool
) -> None:
    data = {
        "index": fallback.index,
        "condition": fallback.condition,
        "action": fallback.action,
        "error": error.to_json(),
        **_flag(answered),
    }
    draft.record_step("fallback.applied", instance, data)
    match fallback.action:
        case "use-value":
            try:
                value = draft.scope(step, suffix).resolve(fallback.value)
            except ReferenceMissing as fault:
                fail(draft, instance, Error(code="reference.missing", message=str(fault)))
            else:
                if too_large(value):
                    fail(draft, instance, _too_large("result"))
                else:
                    complete(draft, instance, value)
        case "skip":
            skip(draft, instance, "fallback")
        case "fail":
            fail(draft, instance, error, timed_out=timed_out)
        case "compensate":
            fail(draft, instance, error, timed_out=timed_out)
            draft.changed.append((draft.definition.steps, ""))
        case "run-step":
            assert fallback.steps is not None, "the schema requires it"
            draft.changed.append((fallback.steps, suffix))
        case "escalate-to-human":
            _escalate(draft, instance, step, fallback, error, suffix, timed_out=timed_out)
        case _:
            assert_never(fallback.action)


def skip(draft: Draft, instance: str, reason: str) -> None:
    """The step is skipped: what depends on it goes on, its result is `null`."""
    draft.record_step("step.skipped", instance, {"reason": reason})
    draft.touch(instance)


def _escalate(draft: Draft, instance: str, step: Step, fallback: Fallback, error: Error, suffix: str, *, timed_out: bool) -> None:
    scope = draft.scope(step, suffix)
    try:
        title = scope.resolve(fallback.title) or f"{instance} failed: {error.message}"
        assignees = scope.resolve(fallback.assignees)
    except ReferenceMissing as fault:
        fail(draft, instance, Error(code="reference.missing", message=str(fault)))
        return
    if too_large([title, assignees, list(fallback.choices), error.to_json()]):
        fail(draft, instance, _too_large("question"))
        return
    _ask_people(
        draft, instance, title, list(fallback.choices), assignees, fallback.deadline_ms,
        escalated=True, timed_out=timed_out, error=error.to_json(),
    )  # fmt: skip
