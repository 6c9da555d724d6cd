"""The fold of a list that is being gathered. Pure and total."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.gather.state import GatherEvent, Gathering, QueryAnswered, QueryAsked, QueryMerged
from streams.limits import GATHER_MS, GATHER_TIMES


def _due_us(state: Gathering, time_us: int) -> int:
    """How long the others have, now that the own partition has answered: it lives, and they have as much to do as it had, about."""
    patience_us = max(GATHER_MS * 1000, GATHER_TIMES * (time_us - state.time_us))
    return min(state.end_us, state.time_us + patience_us)


def evolve(state: Gathering | None, event: GatherEvent, aggregate_id: str, time_us: int) -> Gathering | None:
    """The list after `event`; None: it was answered."""
    if isinstance(event, QueryAsked):
        return Gathering(
            gathering_id=aggregate_id,
            caller=event.caller,
            parameters=event.parameters,
            partitions=event.partitions,
            partition=event.partition if event.due_us is None else -1,
            due_us=event.end_us if event.due_us is None else event.due_us,
            end_us=event.end_us,
            time_us=time_us,
            answers={} if event.due_us is None else {str(event.partition): event.answer},
        )
    if state is None:
        return None
    match event:
        case QueryAnswered():
            due_us = _due_us(state, time_us) if event.partition == state.partition else state.due_us
            return replace(state, answers={**state.answers, str(event.partition): event.answer}, due_us=due_us)
        case QueryMerged():
            return None
        case _:
            assert_never(event)
