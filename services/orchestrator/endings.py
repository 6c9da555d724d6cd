"""The end of an execution: its output, or compensations in reverse order of completion and then the failed end."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, assert_never

from services.orchestrator.attempts import inside_lists
from services.orchestrator.cancelling import cancel_list
from services.orchestrator.definition import ListRole, StepList
from services.orchestrator.draft import Draft, too_large
from services.orchestrator.references import ReferenceMissing
from services.orchestrator.scope import Scope
from services.orchestrator.state import ENDED_WELL, Ending, Error, completions
from streams.matching.expressions import Expression, ExpressionFailed
from streams.records import Json

#: Nobody wanted it: it followed from something.
NOBODY: Mapping[str, Json] = MappingProxyType({})


def end_workflow(draft: Draft) -> None:
    """All steps of the workflow have ended: it completes, or its failed end begins."""
    state = draft.state
    error = state.doomed
    if error is None:
        failed = [step.id for step in draft.definition.steps.steps if step.id in state.failed] if state.failed else []
        first = min(failed, key=state.failed.__getitem__, default=None)
        error = None if first is None else state.step(first).error or Error(code="failed", message=f"The step {first} failed.")
    if error is not None:
        begin_ending(draft, "failed", error)
        return
    try:
        output = _output(draft)
    except (ReferenceMissing, ExpressionFailed) as fault:
        code = "reference.missing" if isinstance(fault, ReferenceMissing) else "expression.failed"
        begin_ending(draft, "failed", Error(code=code, message=str(fault)))
        return
    if too_large(output):
        begin_ending(draft, "failed", Error(code="payload.too-large", message="The output is larger than a record may be."))
        return
    draft.record("execution.completed", {"output": output, "duration_ms": _duration_ms(draft)}, status="completed")


def _output(draft: Draft) -> Json:
    """The execution's result: what `output` says, else the results of all steps by id."""
    scope, output = Scope(draft.definition, draft.state), draft.definition.output
    if output is None:
        return {step.id: scope.outcome(step.id).result for step in draft.definition.steps.steps}
    return {name: _output_value(draft, value) for name, value in output.items()}


def _output_value(draft: Draft, value: Json | Expression) -> Json:
    scope = Scope(draft.definition, draft.state)
    if isinstance(value, Expression):
        return scope.evaluate(value)
    return scope.resolve(value) if isinstance(value, str) else value


def _duration_ms(draft: Draft) -> int:
    return (draft.now_us - draft.state.started_us) // 1000


def begin_ending(draft: Draft, ending: Ending, error: Error | None, who: Mapping[str, Json] = NOBODY) -> None:
    """From here on the end is certain: what still runs is cancelled, compensations run, then the last record is written.

    A pause ends with it: compensations do not wait for a resume. `who`: who cancelled, and why.
    """
    certain: dict[str, Any] = {"ending": ending} | ({} if error is None else {"ending_error": error.to_json()})
    with draft.resumable(do="end", ending=ending, error=None if error is None else error.to_json(), who=dict(who)):
        cancel_list(draft, draft.definition.steps, "", ending, **certain, **who)
    _next_compensation(draft, ending, error, who)


def continue_ending(draft: Draft) -> None:
    """Goes on with the compensations after a pause."""
    state = draft.state
    if state.ending is not None and not state.ended_us and state.compensating is None:
        _next_compensation(draft, state.ending, state.ending_error)


def _next_compensation(draft: Draft, ending: Ending, error: Error | None, who: Mapping[str, Json] = NOBODY) -> None:
    certain: dict[str, Any] = {"ending": ending} | ({} if error is None else {"ending_error": error.to_json()})
    undone = _to_undo(draft)
    if undone is None:
        _end_badly(draft, ending, error, who)
        return
    instance, attempt, earlier = undone
    place, suffix = draft.place(instance)
    steps = place.step.compensation
    assert steps is not None, "chosen for its compensation"
    data: dict[str, Any] = {"step": steps.steps[0].id + suffix, **certain, **who}
    if earlier is not None:
        data["earlier"] = earlier
    if again := inside_lists(draft, (steps,), suffix):
        data["reset"] = again
    draft.record("compensation.started", data, step=instance, attempt=attempt)
    draft.changed.append((steps, suffix))


def _to_undo(draft: Draft) -> tuple[str, int, int | None] | None:
    """The completed step with a compensation that completed last and is not undone yet: instance, attempt, place in `earlier`.

    What had completed in a container before it was tried again counts too.
    """
    state = draft.state
    for _, earlier, instance in reversed(completions(state) if state.left is None else state.left):
        place, _ = draft.place(instance)
        if place.step.compensation is not None and not _inside_compensation(draft, place.steps):
            step = state.step(instance) if earlier < 0 else state.earlier[earlier][instance]
            return instance, step.attempt, None if earlier < 0 else earlier
    return None


def _inside_compensation(draft: Draft, steps: StepList) -> bool:
    while steps.owner is not None:
        if steps.role is ListRole.COMPENSATION:
            return True
        steps = draft.definition.places[steps.owner].steps
    return False


def end_compensation(draft: Draft, steps: StepList, suffix: str) -> None:
    """A compensation has ended, well or not: it is recorded, and the rest still run."""
    undone = draft.owner_of(steps, suffix)
    assert undone is not None, "a compensation belongs to a step"
    state = draft.state
    step = state.step(steps.steps[0].id + suffix)
    attempt = (state.step(undone) if state.undoing is None else state.earlier[state.undoing][undone]).attempt
    if step.status in ENDED_WELL:
        draft.record("compensation.completed", {}, step=undone, attempt=attempt)
    else:
        error = step.error or Error(code="cancelled", message="The compensation was cancelled.")
        draft.record("compensation.failed", {"error": error.to_json()}, step=undone, attempt=attempt)
    if draft.state.paused_us is None:
        continue_ending(draft)


def _end_badly(draft: Draft, ending: Ending, error: Error | None, who: Mapping[str, Json]) -> None:
    data: dict[str, Any] = {"duration_ms": _duration_ms(draft), **who}
    if error is not None:
        data["error"] = error.to_json()
    if any(step.compensation for step in draft.state.steps.values()):
        data["compensated"] = "partly" if draft.state.undone_badly else True
    match ending:
        case "failed" | "cancelled" | "timed_out":
            draft.record(f"execution.{ending}", data, status=ending)
        case _:
            assert_never(ending)
