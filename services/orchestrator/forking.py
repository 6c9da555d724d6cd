"""The `fork` command: a new execution takes over the results before a step, with changed input or definition.

**What is taken over**: the steps on which the given one depends, transitively (by the new definition), as far as they completed or
were skipped here, were not undone, and depend on nothing that has to run again. All others run again, in the new execution; so does a
container of whose steps the new definition does not know one.
What was taken over is never undone there: it belongs to the execution in which it ran.

The new execution may have its home elsewhere, so it is started by a command that brings the results along, and it says when it
has begun. Until then the start is repeated. An execution that has the id already stays as it is, and says the same.
"""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import Any

from services.orchestrator.attempts import inside_of
from services.orchestrator.definition import Definition
from services.orchestrator.draft import Draft, too_large
from services.orchestrator.family import fork_command
from services.orchestrator.state import ENDED, ENDED_WELL, split_instance
from streams import limits
from streams.errors import Refused
from streams.records import Json, derived_id


def fork(draft: Draft, definition: Definition, data: dict[str, Any], command_id: str, who: dict[str, Json]) -> None:
    """Forks an execution in any state. Raises `Refused`: `command.invalid`, `step.unknown`, `payload.too-large`; then nothing was recorded.

    `data`: `step`, and if they are given the new execution's `id` and `input`. If there is an execution with that id, it stays as it is.
    """
    state, step_id = draft.state, data.get("step")
    if not isinstance(step_id, str):
        raise Refused("command.invalid", "A fork names the `step` before which it begins.", pointer="/step")
    if step_id not in definition.places:
        raise Refused("step.unknown", f"The workflow {definition.id} has no step {step_id!r}.", pointer="/step")
    fork_id = data.get("id", derived_id("fork", state.id, command_id))
    if not isinstance(fork_id, str) or not 0 < len(fork_id) <= limits.ID_CHARACTERS_MAX or "/" in fork_id or not fork_id.isprintable():
        raise Refused("execution.id", f"An id has 1 to {limits.ID_CHARACTERS_MAX} printable characters and no slash.", pointer="/id")
    if fork_id == state.id:
        raise Refused("command.invalid", "A fork has an id of its own.", pointer="/id")
    record: dict[str, Any] = {
        "to": fork_id,
        "step": step_id,
        "definition_hash": definition.hash,
        "steps": taken_over(draft, definition, step_id),
        **({"input": data["input"]} if "input" in data else {}),
        **who,
    }
    draft.record("execution.forked", record)
    send = fork_command(draft.state, draft.state.forks[-1])
    if too_large(send.record.data):
        raise Refused("payload.too-large", f"The results to take over are larger than {limits.PAYLOAD_BYTES_MAX} bytes of JSON.")
    draft.effects.append(send)


def taken_over(draft: Draft, definition: Definition, step_id: str) -> list[str]:
    """The steps (instances) whose results a fork before `step_id` takes over: each with all that ran inside it."""
    top = {step.id: step for step in definition.steps.steps}
    needed, waiting = set[str](), [*top[_outermost(definition, step_id)].dependencies]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(top[name].dependencies)
    taken: set[str] = set()
    for name in TopologicalSorter({name: top[name].dependencies for name in needed}).static_order():
        if taken.issuperset(top[name].dependencies) and _stays(draft, definition, name):
            taken.add(name)
    found: list[str] = []
    for name in (name for name in top if name in taken):
        found.append(name)
        inside = inside_of(draft, draft.definition.places[name].step, "")
        found += [instance for instance in inside if draft.state.step(instance).status in ENDED]
    return found


def _outermost(definition: Definition, step_id: str) -> str:
    """The step of the workflow's own list that contains `step_id`: a container begins again as a whole."""
    while (owner := definition.places[step_id].steps.owner) is not None:
        step_id = owner
    return step_id


def _stays(draft: Draft, definition: Definition, name: str) -> bool:
    """Whether a step ended well here, with an effect that is still there, and all that ran inside it exists in the new definition."""
    place = draft.definition.places.get(name)
    if place is None or place.steps.owner is not None or draft.state.step(name).status not in ENDED_WELL:
        return False
    inside = [name, *inside_of(draft, place.step, "")]
    known = all(split_instance(instance)[0] in definition.places for instance in inside)
    return known and not any(draft.state.step(instance).compensation == "completed" for instance in inside)


def take_over(draft: Draft, source: str, data: dict[str, Any]) -> None:
    """Begins the new execution with what it takes over from `source`. Raises `Refused` (`command.invalid`)."""
    given = data.get("steps", {})
    if not isinstance(given, dict):
        raise Refused("command.invalid", "A fork takes over results by step.", pointer="/steps")
    for instance, taken in given.items():
        known = split_instance(instance)[0] in draft.definition.places
        if not known or not isinstance(taken, dict) or taken.get("status") not in ENDED or not isinstance(taken.get("gathered", {}), dict):
            raise Refused("command.invalid", f"{instance[:80]!r} is no step that has ended.", pointer="/steps")
    draft.record("execution.forked", {"from": source, "step": data["forked_from"].get("step"), "steps": given})
