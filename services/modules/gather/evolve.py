"""The fold of a list that is being gathered. Pure and total."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.gather.state import GatherEvent, Gathering, QueryAnswered, QueryAsked, QueryMerged


def evolve(state: Gathering | None, event: GatherEvent, aggregate_id: str, time_us: int) -> Gathering | None:
    """The list after `event`; None: it was answered."""
    if isinstance(event, QueryAsked):
        return Gathering(
            gathering_id=aggregate_id,
            caller=event.caller,
            parameters=event.parameters,
            partitions=event.partitions,
            due_us=event.due_us,
            time_us=time_us,
            answers={str(event.partition): event.answer},
        )
    if state is None:
        return None
    match event:
        case QueryAnswered():
            return replace(state, answers={**state.answers, str(event.partition): event.answer})
        case QueryMerged():
            return None
        case _:
            assert_never(event)
