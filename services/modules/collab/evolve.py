"""The fold of a collaboration's events. Pure and total: an event that fits no state changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.collab.state import (
    CollabCreated,
    CollabEvent,
    Collaboration,
    CollabTransitioned,
    CollabUpdated,
    Decision,
    DecisionMade,
    DecisionProposed,
    Participant,
    ParticipantJoined,
    ParticipantLeft,
    TaskAssigned,
    TaskMoved,
    VoteCast,
)


def evolve(state: Collaboration | None, event: CollabEvent, aggregate_id: str, time_us: int) -> Collaboration | None:
    """The collaboration after `event`; None: there is none."""
    if isinstance(event, CollabCreated):
        return Collaboration(
            collab_id=aggregate_id,
            name=event.name,
            description=event.description,
            context_id=event.context_id,
            status="pending",
            version=1,
            created_us=time_us,
            updated_us=time_us,
        )
    if state is None:
        return None
    changed = replace(state, version=state.version + 1, updated_us=time_us)
    match event:
        case CollabUpdated():
            return replace(
                changed,
                name=state.name if event.name is None else event.name,
                description=state.description if event.description is None else event.description,
            )
        case ParticipantJoined():
            joined = Participant(participant_id=event.participant_id, role=event.role, joined_us=time_us)
            return replace(changed, participants={**state.participants, joined.participant_id: joined})
        case ParticipantLeft():
            rest = {name: each for name, each in state.participants.items() if name != event.participant_id}
            return replace(changed, participants=rest)
        case TaskAssigned() | TaskMoved():
            return replace(changed, tasks={**state.tasks, event.task.task_id: event.task})
        case DecisionProposed():
            return _with(changed, event.decision)
        case VoteCast():
            decision = state.decisions.get(event.decision_id)
            return changed if decision is None else _with(changed, replace(decision, votes={**decision.votes, event.by: event.choice}))
        case DecisionMade():
            decision = state.decisions.get(event.decision_id)
            status = "undecided" if event.outcome is None else "decided"
            return changed if decision is None else _with(changed, replace(decision, status=status, outcome=event.outcome))  # type: ignore[arg-type]
        case CollabTransitioned():
            return replace(changed, status=event.after, reason=event.reason, ended_us=None if event.after == "active" else time_us)
        case _:
            assert_never(event)


def _with(state: Collaboration, decision: Decision) -> Collaboration:
    return replace(state, decisions={**state.decisions, decision.decision_id: decision})
