"""What the confirm operations decide. Pure.

**Who decides.** With approvers only they may, each once a round; without, anybody may. It is approved when as many as the quorum have
approved, and rejected when the quorum cannot be reached any more (without approvers: by the first rejection).
"""

from __future__ import annotations

from typing import Any

from services.modules.built_in import Aggregate, BuiltIn
from services.modules.confirm.evolve import evolve
from services.modules.confirm.operations import (
    Approve,
    Cancel,
    ConfirmList,
    ConfirmResult,
    Create,
    Delegate,
    Escalate,
    Get,
    List,
    Reject,
    Resubmit,
    Update,
)
from services.modules.confirm.questions import CHOICES_GOING_ON, CHOICES_STOPPING, concluded, due, fire, outstanding, take
from services.modules.confirm.state import (
    EVENTS,
    LIFECYCLE,
    OPEN,
    Confirmation,
    ConfirmCreated,
    ConfirmDelegated,
    ConfirmEscalated,
    ConfirmEvent,
    ConfirmTransitioned,
    ConfirmUpdated,
    ConfirmVoted,
    Escalation,
    Verdict,
)
from services.modules.context.decide import open_context
from services.modules.lookup import changed, find, has_text, listing, refuse_version, states_of
from services.modules.operation import Decided, Done, Operation, Outcome, Pending, Refusal, Request, conflict, invalid, time_us_of
from streams.log.types import View


def create(view: View[Any], parameters: Create, request: Request) -> Outcome:
    """Asks for a decision."""
    if parameters.context_id is not None:
        context = open_context(view, parameters.context_id)
        if isinstance(context, Refusal):
            return context
    confirm_id = request.new_id("confirm")
    known = view.state(confirm_id)
    if isinstance(known, Confirmation):
        waiting = known.caller is not None and known.caller.request_id == request.id
        return Pending(aggregate_id=confirm_id) if waiting else conflict(f"This request created {confirm_id} before.")
    expires_us = None if parameters.expires_in is None else request.time_us + parameters.expires_in * 1000
    if parameters.expires_at is not None:
        expires_us = time_us_of(parameters.expires_at)
    if expires_us is not None and expires_us <= request.time_us:
        return invalid("It would have expired already.", "/expiresIn" if parameters.expires_at is None else "/expiresAt")
    escalations = [Escalation(at_us=request.time_us + each.after * 1000, to=tuple(each.to)) for each in parameters.escalation]
    event = ConfirmCreated(
        title=parameters.title,
        description=parameters.description,
        requested_by=parameters.requested_by,
        approvers=tuple(dict.fromkeys(parameters.approvers)),
        quorum=parameters.quorum,
        context_id=parameters.context_id,
        data=parameters.data,
        escalations=tuple(sorted(escalations, key=lambda each: each.at_us)),
        expires_us=expires_us,
        caller=request.caller if parameters.wait else None,
        correlation_id=request.caller.correlation_id,
    )
    if parameters.wait:
        return Pending(aggregate_id=confirm_id, events=(Decided(aggregate_id=confirm_id, event=event),))
    return changed(evolve, None, confirm_id, request, ConfirmResult.of, event)


def approve(view: View[Any], parameters: Approve, request: Request) -> Outcome:
    """Approves; the last approval that the quorum needs ends it."""
    state = _open_to(view, parameters.confirm_id, parameters.by)
    if isinstance(state, Refusal):
        return state
    choice = parameters.choice
    if state.question is not None:
        offered = state.question.choices
        choice = choice or next((each for each in CHOICES_GOING_ON if each in offered), offered[0])
        if choice not in offered or choice in CHOICES_STOPPING:
            return invalid(f"{choice!r} is no way to approve here; the choices are {', '.join(offered)}.", "/choice")
        if choice == "use-value" and parameters.value is None:
            return invalid("The choice use-value needs a value.", "/value")
    elif choice is not None or parameters.value is not None:
        return invalid("Only questions of workflows have choices.", "/choice")
    vote = ConfirmVoted(by=parameters.by, verdict="approve", comment=parameters.comment, choice=choice, value=parameters.value)
    return _voted(state, vote, request)


def reject(view: View[Any], parameters: Reject, request: Request) -> Outcome:
    """Rejects, with a reason; it is rejected as a whole when the quorum is out of reach."""
    state = _open_to(view, parameters.confirm_id, parameters.by)
    if isinstance(state, Refusal):
        return state
    choice = None
    if state.question is not None:
        choice = next((each for each in CHOICES_STOPPING if each in state.question.choices), None)
        if choice is None:
            return conflict(f"This question has no way to reject; its choices are {', '.join(state.question.choices)}.", "/confirmId")
    return _voted(state, ConfirmVoted(by=parameters.by, verdict="reject", comment=parameters.reason, choice=choice), request)


def _voted(state: Confirmation, vote: ConfirmVoted, request: Request) -> Outcome:
    after = evolve(state, vote, state.confirm_id, request.time_us)
    assert after is not None
    events: list[ConfirmEvent] = [vote]
    verdict = _verdict(after)
    if verdict is not None:
        status = "approved" if verdict == "approve" else "rejected"
        events.append(ConfirmTransitioned(before=state.status, after=status, by=vote.by, reason=vote.comment))  # type: ignore[arg-type]
    elif state.status == "pending":
        events.append(ConfirmTransitioned(before=state.status, after="in_review", by=vote.by))
    return _concluded(state, request, *events)


def _concluded(state: Confirmation, request: Request, *events: ConfirmEvent) -> Done:
    """The events, the result, and what workflows and callers that wait are told."""
    done = changed(evolve, state, state.confirm_id, request, ConfirmResult.of, *events)
    return concluded(state, done, request.time_us)


def _verdict(state: Confirmation) -> Verdict | None:
    """What is decided; None: nothing, more have to say something."""
    if state.votes_now("approve") >= state.quorum:
        return "approve"
    if not state.approvers:
        return "reject" if state.votes_now("reject") else None
    decided = {vote.by for vote in state.votes if vote.round == state.round}
    left = sum(each not in decided for each in state.approvers)
    return "reject" if state.votes_now("approve") + left < state.quorum else None


def delegate(view: View[Any], parameters: Delegate, request: Request) -> Outcome:
    """Gives one's decision to somebody else."""
    state = _open_to(view, parameters.confirm_id, parameters.by)
    if isinstance(state, Refusal):
        return state
    if not state.approvers:
        return conflict("Anybody may decide; there is nothing to delegate.", "/confirmId")
    if parameters.to in state.approvers:
        return conflict(f"{parameters.to!r} is to decide already.", "/to")
    event = ConfirmDelegated(by=parameters.by, to=parameters.to, reason=parameters.reason)
    return _concluded(state, request, event, *_reviewed(state, parameters.by))


def escalate(view: View[Any], parameters: Escalate, request: Request) -> Outcome:
    """Asks more people."""
    state = _open(view, parameters.confirm_id)
    if isinstance(state, Refusal):
        return state
    event = ConfirmEscalated(to=tuple(dict.fromkeys(parameters.to)), by=parameters.by, reason=parameters.reason)
    return _concluded(state, request, event, *_reviewed(state, parameters.by))


def cancel(view: View[Any], parameters: Cancel, request: Request) -> Outcome:
    """Takes the question back. One that a workflow asks ends with the workflow's step."""
    state = _open(view, parameters.confirm_id)
    if isinstance(state, Refusal):
        return state
    if state.question is not None:
        return conflict("A workflow waits for this; answer it, or cancel the workflow.", "/confirmId")
    event = ConfirmTransitioned(before=state.status, after="cancelled", by=parameters.by, reason=parameters.reason)
    return _concluded(state, request, event)


def resubmit(view: View[Any], parameters: Resubmit, request: Request) -> Outcome:
    """Puts a rejected question again: everybody decides anew."""
    state = find(view, Confirmation, parameters.confirm_id, pointer="/confirmId")
    if isinstance(state, Refusal):
        return state
    refused = LIFECYCLE.refusal(state.status, "pending", "/confirmId")
    if refused is None and state.question is not None:
        refused = conflict("The workflow that asked has its answer; it asks again by itself if it has to.", "/confirmId")
    if refused is not None:
        return refused
    events: list[ConfirmEvent] = [] if parameters.data is None else [ConfirmUpdated(data=parameters.data)]
    events.append(ConfirmTransitioned(before=state.status, after="pending", by=parameters.by, reason=parameters.reason))
    return _concluded(state, request, *events)


def update(view: View[Any], parameters: Update, request: Request) -> Outcome:
    """Changes what is asked or who decides, while nobody has decided."""
    state = _open(view, parameters.confirm_id)
    if isinstance(state, Refusal):
        return state
    refused = refuse_version(parameters.expected_version, state.version, "confirmation")
    if refused is not None:
        return refused
    if any(vote.round == state.round for vote in state.votes):
        return conflict("Somebody has decided already; what was asked does not change any more.", "/confirmId")
    approvers = None if parameters.approvers is None else tuple(dict.fromkeys(parameters.approvers))
    after = state.approvers if approvers is None else approvers
    if after and (parameters.quorum or state.quorum) > len(after):
        return invalid("The quorum is more than there are approvers.", "/quorum")
    event = ConfirmUpdated(
        title=parameters.title, description=parameters.description, approvers=approvers, quorum=parameters.quorum, data=parameters.data
    )
    return _concluded(state, request, event)


def get(view: View[Any], parameters: Get, request: Request) -> Outcome:
    """A confirmation with all decisions."""
    state = find(view, Confirmation, parameters.confirm_id, pointer="/confirmId")
    return state if isinstance(state, Refusal) else Done(aggregate_id=state.confirm_id, result=ConfirmResult.of(state))


def list_(view: View[Any], parameters: List, request: Request) -> Outcome:
    """Confirmations in order of their ids, by state, by who is to decide, by who asked."""
    wanted = (
        state
        for state in states_of(view, Confirmation)
        if parameters.status in (None, state.status)
        and parameters.requested_by in (None, state.requested_by)
        and parameters.context_id in (None, state.context_id)
        and parameters.execution_id in (None, state.question.execution_id if state.question else "")
        and has_text(parameters.text, state.title, state.description)
        and (parameters.approver is None or _awaits(state, parameters.approver))
    )
    return listing(view, parameters, ConfirmList, wanted, lambda state: state.confirm_id, ConfirmResult.of)


def _awaits(state: Confirmation, approver: str) -> bool:
    decided = any(vote.by == approver and vote.round == state.round for vote in state.votes)
    return state.status in OPEN and not decided and (not state.approvers or approver in state.approvers)


def _reviewed(state: Confirmation, by: str) -> tuple[ConfirmEvent, ...]:
    return (ConfirmTransitioned(before=state.status, after="in_review", by=by),) if state.status == "pending" else ()


def _open(view: View[Any], confirm_id: str) -> Confirmation | Refusal:
    state = find(view, Confirmation, confirm_id, pointer="/confirmId")
    if isinstance(state, Confirmation) and state.status not in OPEN:
        return conflict(f"The confirmation is {state.status}; nothing is to be decided.", "/confirmId")
    return state


def _open_to(view: View[Any], confirm_id: str, who: str) -> Confirmation | Refusal:
    state = _open(view, confirm_id)
    if isinstance(state, Refusal):
        return state
    if state.approvers and who not in state.approvers:
        given = state.delegations.get(who)
        more = f"; the decision was given to {given}" if given else f"; it is up to {', '.join(state.approvers[:10])}"
        return Refusal(code="denied", message=f"{who!r} does not decide this{more}.", pointer="/by")
    if any(vote.by == who and vote.round == state.round for vote in state.votes):
        return conflict(f"{who!r} has decided already.", "/by")
    return state


MODULE = BuiltIn(
    operations={
        "create": Operation(parameters=Create, result=ConfirmResult, decide=create),
        "approve": Operation(parameters=Approve, result=ConfirmResult, decide=approve),
        "reject": Operation(parameters=Reject, result=ConfirmResult, decide=reject),
        "delegate": Operation(parameters=Delegate, result=ConfirmResult, decide=delegate),
        "escalate": Operation(parameters=Escalate, result=ConfirmResult, decide=escalate),
        "cancel": Operation(parameters=Cancel, result=ConfirmResult, decide=cancel),
        "resubmit": Operation(parameters=Resubmit, result=ConfirmResult, decide=resubmit),
        "update": Operation(parameters=Update, result=ConfirmResult, decide=update),
        "get": Operation(parameters=Get, result=ConfirmResult, decide=get),
        "list": Operation(parameters=List, result=ConfirmList, decide=list_, gathers=True),
    },
    events=EVENTS,
    evolve=evolve,
    aggregates=(Aggregate(state=Confirmation, due=due, fire=fire, outstanding=outstanding, ended=lambda state: state.ended_us),),
    take=take,
    lifecycles=(LIFECYCLE,),
)
