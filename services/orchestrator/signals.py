"""Signals: delivered to a step that waits for one of their name, else kept; kept ones of a name are taken first come, first served."""

from __future__ import annotations

from typing import Any

import orjson

from services.orchestrator import attempts
from services.orchestrator.draft import Draft
from streams import limits
from streams.errors import Refused
from streams.records import Json


def receive(draft: Draft, data: dict[str, Any], who: dict[str, Json], depth: int = 0) -> None:
    """Takes a signal. It also reaches an execution that is paused: what follows from it waits for the resume.

    `depth` tells how far the signal is from what was not started by itself; what follows from it is no nearer.

    Raises `Refused` (`command.invalid`, `signal.too-many`, `execution.too-large`), then nothing was recorded.
    """
    name, payload = data.get("name"), data.get("data")
    if not isinstance(name, str) or not 0 < len(name) <= limits.NAME_CHARACTERS_MAX:
        raise Refused("command.invalid", f"A signal has a name of 1 to {limits.NAME_CHARACTERS_MAX} characters.", pointer="/name")
    state = draft.state
    record: dict[str, Any] = {"name": name, "data": payload, **who}
    if depth > state.trigger_depth:
        record["trigger_depth"] = depth
    # Those that wait longest come first: they are in the order in which they began.
    waiting = next((instance for instance in state.live_in_order() if _waits_for(draft, instance, name)), None)
    if waiting is not None:
        draft.record_step("signal.received", waiting, record)
        attempts.complete(draft, waiting, payload)
        return
    if len(state.signals) >= limits.SIGNALS_KEPT_MAX:
        raise Refused("signal.too-many", f"The execution keeps {limits.SIGNALS_KEPT_MAX} signals already that no step has taken.")
    if state.results_bytes + len(orjson.dumps(payload)) > limits.EXECUTION_STATE_BYTES_MAX - limits.PAYLOAD_BYTES_MAX:
        raise Refused("execution.too-large", "The execution's state has no room for another signal.")
    draft.record("signal.received", record)


def _waits_for(draft: Draft, instance: str, name: str) -> bool:
    step = draft.state.step(instance)
    return step.status == "waiting" and step.signal == name
