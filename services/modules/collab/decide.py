"""What the collab operations decide. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from services.modules.built_in import Aggregate, BuiltIn
from services.modules.collab.evolve import evolve
from services.modules.collab.operations import (
    AssignTask,
    CollabDecision,
    CollabList,
    CollabResult,
    CollabTask,
    Create,
    Decide,
    DecisionResult,
    End,
    Get,
    Join,
    Leave,
    List,
    Propose,
    TaskResult,
    Update,
    UpdateTask,
)
from services.modules.collab.state import (
    EVENTS,
    LIFECYCLE,
    PARTICIPANTS_MAX,
    PARTICIPANTS_MIN,
    TASK_LIFECYCLE,
    TASKS_MAX,
    VOTES_MAX,
    CollabCreated,
    CollabEvent,
    Collaboration,
    CollabTransitioned,
    CollabUpdated,
    Decision,
    DecisionMade,
    DecisionProposed,
    ParticipantJoined,
    ParticipantLeft,
    SharedTask,
    TaskAssigned,
    TaskMoved,
    VoteCast,
)
from services.modules.context.decide import open_context
from services.modules.lookup import changed, find, has_text, listing, refuse_version, states_of
from services.modules.operation import Done, Operation, Outcome, Refusal, Request, Result, conflict, invalid, not_found
from streams.log.types import View


def create(view: View[Any], parameters: Create, request: Request) -> Outcome:
    """Begins a collaboration; with two participants it is active."""
    if parameters.context_id is not None:
        context = open_context(view, parameters.context_id)
        if isinstance(context, Refusal):
            return context
    collab_id = request.new_id("collab")
    if view.state(collab_id) is not None:
        return conflict(f"This request created {collab_id} before.")
    joining: dict[str, ParticipantJoined] = {}
    for index, each in enumerate(parameters.participants):
        joined = (
            ParticipantJoined(participant_id=each)
            if isinstance(each, str)
            else ParticipantJoined(participant_id=each.participant_id, role=each.role)
        )
        if joined.participant_id in joining:
            return invalid(f"{joined.participant_id!r} is named twice.", f"/participants/{index}")
        joining[joined.participant_id] = joined
    events: list[CollabEvent] = [
        CollabCreated(name=parameters.name, description=parameters.description, context_id=parameters.context_id),
        *joining.values(),
    ]
    if len(joining) >= PARTICIPANTS_MIN:
        events.append(CollabTransitioned(before="pending", after="active"))
    return changed(evolve, None, collab_id, request, CollabResult.of, *events)


def join(view: View[Any], parameters: Join, request: Request) -> Outcome:
    """Takes part from now on; the second participant makes the collaboration active."""
    state = _open(view, parameters.collab_id)
    if isinstance(state, Refusal):
        return state
    if parameters.participant_id in state.participants:
        return conflict(f"{parameters.participant_id!r} takes part already.", "/participantId")
    if len(state.participants) >= PARTICIPANTS_MAX:
        return conflict(f"A collaboration has at most {PARTICIPANTS_MAX} participants.", "/participantId")
    events: list[CollabEvent] = [ParticipantJoined(participant_id=parameters.participant_id, role=parameters.role)]
    if state.status == "pending" and len(state.participants) + 1 >= PARTICIPANTS_MIN:
        events.append(CollabTransitioned(before="pending", after="active"))
    return changed(evolve, state, state.collab_id, request, CollabResult.of, *events)


def leave(view: View[Any], parameters: Leave, request: Request) -> Outcome:
    """Takes part no more; open tasks have to be given to others first. Votes that are certain then end."""
    state = _open(view, parameters.collab_id)
    if isinstance(state, Refusal):
        return state
    if parameters.participant_id not in state.participants:
        return not_found("participant", parameters.participant_id, "/participantId")
    left = [
        task.task_id
        for task in state.tasks.values()
        if task.assignee == parameters.participant_id and task.status in ("assigned", "running")
    ]
    if left:
        return conflict(f"{parameters.participant_id!r} has open tasks: {', '.join(left[:10])}.", "/participantId")
    event = ParticipantLeft(participant_id=parameters.participant_id, reason=parameters.reason)
    after = evolve(state, event, state.collab_id, request.time_us)
    assert after is not None
    made = [found for decision in after.decisions.values() if (found := _made(after, decision)) is not None]
    return changed(evolve, state, state.collab_id, request, CollabResult.of, event, *made)


def assign_task(view: View[Any], parameters: AssignTask, request: Request) -> Outcome:
    """Gives a participant a task, or a task to another participant."""
    state = _active(view, parameters.collab_id)
    if isinstance(state, Refusal):
        return state
    if parameters.assignee not in state.participants:
        return invalid(f"{parameters.assignee!r} does not take part.", "/assignee")
    if parameters.task_id is None:
        if len(state.tasks) >= TASKS_MAX:
            return conflict(f"A collaboration has at most {TASKS_MAX} tasks.")
        task = SharedTask(task_id=_part(request, "task"), title=parameters.title, assignee=parameters.assignee)
    else:
        known = state.tasks.get(parameters.task_id)
        if known is None:
            return not_found("task", parameters.task_id, "/taskId")
        refused = None if known.status == "assigned" else TASK_LIFECYCLE.refusal(known.status, "assigned", "/taskId")
        if refused is not None:
            return refused
        task = replace(known, title=parameters.title or known.title, assignee=parameters.assignee, status="assigned")
    return changed(evolve, state, state.collab_id, request, _showing_task(task.task_id), TaskAssigned(task=task))


def update_task(view: View[Any], parameters: UpdateTask, request: Request) -> Outcome:
    """Reports on a task."""
    state = _active(view, parameters.collab_id)
    if isinstance(state, Refusal):
        return state
    task = state.tasks.get(parameters.task_id)
    if task is None:
        return not_found("task", parameters.task_id, "/taskId")
    refused = TASK_LIFECYCLE.refusal(task.status, parameters.status, "/status")
    if refused is not None:
        return refused
    moved = TaskMoved(task=replace(task, status=parameters.status, result=parameters.result), before=task.status)
    return changed(evolve, state, state.collab_id, request, _showing_task(task.task_id), moved)


def propose(view: View[Any], parameters: Propose, request: Request) -> Outcome:
    """Puts something to the vote."""
    state = _active(view, parameters.collab_id)
    if isinstance(state, Refusal):
        return state
    if parameters.by and parameters.by not in state.participants:
        return Refusal(code="denied", message=f"{parameters.by!r} does not take part.", pointer="/by")
    if len(set(parameters.options)) != len(parameters.options):
        return invalid("An option is named twice.", "/options")
    if _vote_called(state, parameters.title) is not None:
        return conflict(f"The vote {parameters.title!r} is open already.", "/title")
    if len(state.decisions) >= VOTES_MAX:
        return conflict(f"A collaboration has at most {VOTES_MAX} votes.")
    decision = Decision(
        decision_id=_part(request, "decision"), title=parameters.title, options=tuple(parameters.options), rule=parameters.rule
    )
    return changed(
        evolve,
        state,
        state.collab_id,
        request,
        _showing_decision(decision.decision_id),
        DecisionProposed(decision=decision, by=parameters.by),
    )


def decide(view: View[Any], parameters: Decide, request: Request) -> Outcome:
    """Votes; the vote ends as soon as its rule makes the outcome certain, or all have voted."""
    state = _active(view, parameters.collab_id)
    if isinstance(state, Refusal):
        return state
    if parameters.by not in state.participants:
        return Refusal(code="denied", message=f"{parameters.by!r} does not take part.", pointer="/by")
    events: list[CollabEvent] = []
    if parameters.decision_id is not None:
        decision = state.decisions.get(parameters.decision_id)
        if decision is None:
            return not_found("decision", parameters.decision_id, "/decisionId")
    else:
        title = parameters.title or ""
        decision = _vote_called(state, title)
        if decision is None:
            decision = Decision(decision_id=_part(request, "decision"), title=title, options=("yes", "no"), rule="majority")
            events.append(DecisionProposed(decision=decision, by=parameters.by))
    if decision.status != "open":
        return conflict(f"The vote has ended: {decision.outcome or decision.status}.", "/decisionId")
    if parameters.choice not in decision.options:
        return invalid(f"{parameters.choice!r} is no option; they are {', '.join(decision.options)}.", "/choice")
    if parameters.by in decision.votes:
        return conflict(f"{parameters.by!r} has voted already.", "/by")
    vote = VoteCast(decision_id=decision.decision_id, by=parameters.by, choice=parameters.choice, reason=parameters.reason)
    made = _made(state, replace(decision, votes={**decision.votes, vote.by: vote.choice}))
    events += [vote] if made is None else [vote, made]
    return changed(evolve, state, state.collab_id, request, _showing_decision(decision.decision_id), *events)


def _made(state: Collaboration, decision: Decision) -> DecisionMade | None:
    """How a vote ends; None: it goes on. Only votes of those who still take part count."""
    if decision.status != "open":
        return None
    votes = {by: choice for by, choice in decision.votes.items() if by in state.participants}
    counts, voters = Counter(votes.values()), len(state.participants)
    all_voted = len(votes) >= voters
    ranked = counts.most_common(2)
    outcome: str | None = None
    match decision.rule:
        case "majority":
            outcome = ranked[0][0] if ranked and ranked[0][1] * 2 > voters else None
            is_certain = all_voted or (outcome is None and bool(ranked) and (ranked[0][1] + voters - len(votes)) * 2 <= voters)
        case "unanimous":
            outcome = ranked[0][0] if len(counts) == 1 and all_voted else None
            is_certain = all_voted or len(counts) > 1
        case "plurality":
            is_tie = len(ranked) == 2 and ranked[0][1] == ranked[1][1]
            outcome = ranked[0][0] if ranked and all_voted and not is_tie else None
            is_certain = all_voted
    if outcome is None and not is_certain:
        return None
    return DecisionMade(decision_id=decision.decision_id, outcome=outcome) if votes else None


def end(view: View[Any], parameters: End, request: Request) -> Outcome:
    """Ends a collaboration: completed (all tasks done), failed or cancelled."""
    state = find(view, Collaboration, parameters.collab_id, pointer="/collabId")
    if isinstance(state, Refusal):
        return state
    refused = LIFECYCLE.refusal(state.status, parameters.status, "/status")
    if refused is not None:
        return refused
    left = [task.task_id for task in state.tasks.values() if task.status != "completed"]
    if left and parameters.status == "completed":
        return conflict(f"Tasks are not completed: {', '.join(left[:10])}.", "/status")
    event = CollabTransitioned(before=state.status, after=parameters.status, reason=parameters.reason)
    return changed(evolve, state, state.collab_id, request, CollabResult.of, event)


def update(view: View[Any], parameters: Update, request: Request) -> Outcome:
    """Changes name or description of a collaboration that has not ended."""
    state = _open(view, parameters.collab_id)
    if isinstance(state, Refusal):
        return state
    refused = refuse_version(parameters.expected_version, state.version, "collaboration")
    if refused is not None:
        return refused
    event = CollabUpdated(name=parameters.name, description=parameters.description)
    return changed(evolve, state, state.collab_id, request, CollabResult.of, event)


def get(view: View[Any], parameters: Get, request: Request) -> Outcome:
    """A collaboration with its participants, tasks and votes."""
    state = find(view, Collaboration, parameters.collab_id, pointer="/collabId")
    return state if isinstance(state, Refusal) else Done(aggregate_id=state.collab_id, result=CollabResult.of(state))


def list_(view: View[Any], parameters: List, request: Request) -> Outcome:
    """Collaborations in order of their ids, by state, participant, context, or part of the name."""
    wanted = (
        state
        for state in states_of(view, Collaboration)
        if parameters.status in (None, state.status)
        and parameters.context_id in (None, state.context_id)
        and (parameters.participant is None or parameters.participant in state.participants)
        and has_text(parameters.text, state.name, state.description)
    )
    return listing(view, parameters, CollabList, wanted, lambda state: state.collab_id, CollabResult.of)


def _part(request: Request, kind: str) -> str:
    return request.new_id(kind).partition("/")[2]


def _showing_task(task_id: str) -> Any:
    def show(state: Collaboration) -> Result:
        return CollabTask(**CollabResult.of(state).model_dump(), task=TaskResult.of(state.tasks[task_id]))

    return show


def _showing_decision(decision_id: str) -> Any:
    def show(state: Collaboration) -> Result:
        return CollabDecision(**CollabResult.of(state).model_dump(), decision=DecisionResult.of(state.decisions[decision_id]))

    return show


def _open(view: View[Any], collab_id: str) -> Collaboration | Refusal:
    state = find(view, Collaboration, collab_id, pointer="/collabId")
    if isinstance(state, Collaboration) and state.status not in ("pending", "active"):
        return conflict(f"The collaboration is {state.status}.", "/collabId")
    return state


def _vote_called(state: Collaboration, title: str) -> Decision | None:
    """The open vote with this title: by it a vote is found, so there is at most one."""
    return next((each for each in state.decisions.values() if each.title == title and each.status == "open"), None)


def _active(view: View[Any], collab_id: str) -> Collaboration | Refusal:
    state = find(view, Collaboration, collab_id, pointer="/collabId")
    if isinstance(state, Collaboration) and state.status != "active":
        return conflict(f"The collaboration is {state.status}, not active: it needs {PARTICIPANTS_MIN} participants.", "/collabId")
    return state


MODULE = BuiltIn(
    operations={
        "create": Operation(parameters=Create, result=CollabResult, decide=create),
        "join": Operation(parameters=Join, result=CollabResult, decide=join),
        "leave": Operation(parameters=Leave, result=CollabResult, decide=leave),
        "assign-task": Operation(parameters=AssignTask, result=CollabTask, decide=assign_task),
        "update-task": Operation(parameters=UpdateTask, result=CollabTask, decide=update_task),
        "propose": Operation(parameters=Propose, result=CollabDecision, decide=propose),
        "decide": Operation(parameters=Decide, result=CollabDecision, decide=decide),
        "update": Operation(parameters=Update, result=CollabResult, decide=update),
        "end": Operation(parameters=End, result=CollabResult, decide=end),
        "get": Operation(parameters=Get, result=CollabResult, decide=get),
        "list": Operation(parameters=List, result=CollabList, decide=list_, gathers=True),
    },
    events=EVENTS,
    evolve=evolve,
    aggregates=(Aggregate(state=Collaboration, ended=lambda state: state.ended_us),),
    lifecycles=(LIFECYCLE, TASK_LIFECYCLE),
)
