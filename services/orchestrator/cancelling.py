"""Cancelling what runs or waits, with everything inside it."""

from __future__ import annotations

from typing import Any

from services.orchestrator import children, effects
from services.orchestrator.definition import StepList
from services.orchestrator.draft import Draft
from services.orchestrator.state import ENDED


def cancel(draft: Draft, instance: str, reason: str, **more: Any) -> None:
    """Cancels a step that has not ended, and what runs inside it; a module that runs elsewhere is told."""
    place, suffix = draft.place(instance)
    state = draft.state.step(instance)
    for inner, inner_suffix in draft.inner_lists(place.step, state, suffix):
        cancel_list(draft, inner, inner_suffix, reason, **more)
    draft.check_room()
    if effects.is_asking(state) and state.module not in draft.local_modules:
        draft.effects.append(effects.cancel_message(draft.state, instance, state, draft.now_us))
    children.give_up(draft, instance)
    draft.record_step("step.cancelled", instance, {"reason": reason, **more})


def cancel_list(draft: Draft, steps: StepList, suffix: str, reason: str, **more: Any) -> None:
    """Cancels all steps of a list that have not ended."""
    for step in steps.steps:
        if draft.state.step(step.id + suffix).status not in ENDED:
            cancel(draft, step.id + suffix, reason, **more)
