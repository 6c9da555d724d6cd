from __future__ import annotations

from typing import Any

import pytest

from services.modules.confirm.questions import confirm_id_of
from streams.limits import ENDED_LISTED_MS
from tests.unit.modules.world import Refused, World


@pytest.fixture
def world() -> World:
    return World()


def create(world: World, **parameters: Any) -> str:
    return str(world.call("confirm", "create", {"title": "Ship it?", **parameters})["confirmId"])


def refused(world: World, operation: str, **parameters: Any) -> tuple[str, str | None]:
    with pytest.raises(Refused) as error:
        world.call("confirm", operation, parameters)
    return error.value.code, error.value.pointer


def test_one_approval_is_enough_unless_more_are_needed(world: World) -> None:
    confirm = create(world)
    decided = world.call("confirm", "approve", confirmId=confirm, by="ada", comment="fine")
    assert (decided["status"], decided["approvals"], decided["decisions"][0]["by"]) == ("approved", 1, "ada")
    assert refused(world, "approve", confirmId=confirm, by="bob") == ("conflict", "/confirmId")


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [({"expiresIn": 0}, "/expiresIn"), ({"expiresAt": "1970-01-01T00:00:01Z"}, "/expiresAt")],
)
def test_what_would_have_expired_already_is_not_asked(world: World, parameters: Any, pointer: str) -> None:
    assert refused(world, "create", title="x", **parameters) == ("invalid", pointer)


def test_a_quorum_is_reached_or_out_of_reach(world: World) -> None:
    approvers = ["ada", "bob", "eve"]
    confirm = create(world, approvers=approvers, quorum=2)
    assert world.call("confirm", "approve", confirmId=confirm, by="ada")["status"] == "in_review"
    assert world.call("confirm", "reject", confirmId=confirm, by="bob", reason="no")["status"] == "in_review"
    assert world.call("confirm", "approve", confirmId=confirm, by="eve")["status"] == "approved"
    other = create(world, approvers=approvers, quorum=2)
    world.call("confirm", "reject", confirmId=other, by="ada", reason="no")
    assert world.call("confirm", "reject", confirmId=other, by="bob", reason="never")["status"] == "rejected"


def test_only_approvers_decide_and_each_once(world: World) -> None:
    confirm = create(world, approvers=["ada", "bob"], quorum=2)
    assert refused(world, "approve", confirmId=confirm, by="eve") == ("denied", "/by")
    world.call("confirm", "approve", confirmId=confirm, by="ada")
    assert refused(world, "approve", confirmId=confirm, by="ada") == ("conflict", "/by")


def test_a_rejection_says_why(world: World) -> None:
    assert refused(world, "reject", confirmId=create(world), by="ada") == ("invalid", "")
    assert refused(world, "reject", confirmId=create(world), by="ada", reason="") == ("invalid", "/reason")


def test_rejected_then_approved_are_two_decisions(world: World) -> None:
    confirm = create(world)
    world.call("confirm", "reject", confirmId=confirm, by="ada", reason="too dear")
    world.call("confirm", "resubmit", confirmId=confirm, data={"price": 1})
    decided = world.call("confirm", "approve", confirmId=confirm, by="ada")
    assert [(each["verdict"], each["round"]) for each in decided["decisions"]] == [("reject", 1), ("approve", 2)]
    assert (decided["status"], decided["data"]) == ("approved", {"price": 1})


def test_who_delegates_decides_no_more(world: World) -> None:
    confirm = create(world, approvers=["ada", "bob"])
    assert refused(world, "delegate", confirmId=confirm, by="ada", to="bob") == ("conflict", "/to")
    delegated = world.call("confirm", "delegate", confirmId=confirm, by="ada", to="eve")
    assert (delegated["approvers"], delegated["status"]) == (["eve", "bob"], "in_review")
    assert refused(world, "approve", confirmId=confirm, by="ada") == ("denied", "/by")
    assert world.call("confirm", "approve", confirmId=confirm, by="eve")["status"] == "approved"


def test_it_escalates_in_time_and_then_expires(world: World) -> None:
    escalation = [{"after": "10m", "to": ["chief"]}, {"after": "1h", "to": ["board"]}]
    confirm = create(world, approvers=["ada"], escalation=escalation, expiresIn="2h")
    world.wait(10 * 60)
    found = world.call("confirm", "get", confirmId=confirm)
    assert (found["approvers"], found["status"], found["escalated"]) == (["ada", "chief"], "in_review", 1)
    world.wait(50 * 60)
    assert world.call("confirm", "get", confirmId=confirm)["approvers"] == ["ada", "chief", "board"]
    world.wait(3600)
    assert world.call("confirm", "get", confirmId=confirm)["status"] == "expired"
    assert [event.type for event in world.events("confirm.escalated", "confirm.expired")] == ["confirm.escalated"] * 2 + ["confirm.expired"]


def test_a_decision_in_time_stops_the_timers(world: World) -> None:
    confirm = create(world, escalation=[{"after": "1m", "to": ["chief"]}], expiresIn="5m")
    world.call("confirm", "approve", confirmId=confirm, by="ada")
    world.wait(600)
    assert world.call("confirm", "get", confirmId=confirm)["escalated"] == 0


@pytest.mark.parametrize("decision", ["approve", "expire"])
def test_a_caller_may_wait_for_the_decision(world: World, decision: str) -> None:
    request = world.ask("confirm", "create", {"title": "?", "wait": True, "expiresIn": "1m"})
    assert request not in world.responses
    (confirm,) = world.call("confirm", "list", status="pending")["confirmations"]
    if decision == "approve":
        world.call("confirm", "approve", confirmId=confirm["confirmId"], by="ada")
    else:
        world.wait(60)
    assert world.answer_of(request)["status"] == {"approve": "approved", "expire": "expired"}[decision]


def test_whom_it_waits_for_finds_it(world: World) -> None:
    mine = create(world, approvers=["ada", "bob"], quorum=2)
    create(world, approvers=["bob"])
    anybody = create(world)
    listed = world.call("confirm", "list", approver="ada")["confirmations"]
    assert [each["confirmId"] for each in listed] == sorted([mine, anybody])
    world.call("confirm", "approve", confirmId=mine, by="ada")
    assert [each["confirmId"] for each in world.call("confirm", "list", approver="ada")["confirmations"]] == [anybody]


def test_what_was_asked_changes_only_until_somebody_decides(world: World) -> None:
    confirm = create(world, approvers=["ada", "bob"], quorum=2)
    assert world.call("confirm", "update", confirmId=confirm, title="Really?", expectedVersion=1)["title"] == "Really?"
    assert refused(world, "update", confirmId=confirm, title="x", expectedVersion=1) == ("conflict", "/expectedVersion")
    assert refused(world, "update", confirmId=confirm, quorum=3) == ("invalid", "/quorum")
    world.call("confirm", "approve", confirmId=confirm, by="ada")
    assert refused(world, "update", confirmId=confirm, title="x") == ("conflict", "/confirmId")


@pytest.mark.parametrize(
    "parameters",
    [{"approvers": ["ada"], "quorum": 2}, {"expiresIn": 1, "expiresAt": "2030-01-01T00:00:00Z"}, {"expiresAt": "tomorrow"}, {"title": ""}],
)
def test_what_can_never_be_decided_is_invalid(world: World, parameters: dict[str, Any]) -> None:
    assert refused(world, "create", **{"title": "?", **parameters})[0] == "invalid"


def test_a_day_after_its_end_it_is_listed_no_more_but_still_found(world: World) -> None:
    confirm = create(world)
    world.call("confirm", "approve", confirmId=confirm, by="ada")
    machine = world.modules[0].machine
    assert machine.ended(world.state(confirm)) is None
    world.wait(ENDED_LISTED_MS / 1000)
    assert machine.ended(world.state(confirm)) is not None, "it may leave memory"
    assert machine.due(world.state(confirm)) is None
    assert world.call("confirm", "get", confirmId=confirm)["status"] == "approved"


# --- workflows ------------------------------------------------------------------------------------------------------------

APPROVAL = {"id": "w", "name": "w", "steps": [{"id": "ask", "type": "approval", "title": "Go?", "assignees": ["ada"], "deadline": "1h"}]}
FAILING = {
    "id": "w",
    "name": "w",
    "steps": [{
        "id": "call", "type": "module-operation", "module": "context", "operation": "get-context", "parameters": {"contextId": "w-1/none"},
        "error-handling": {"fallback-actions": [{"condition": "error", "action": "escalate-to-human", "title": "Broken"}]},
    }],
}  # fmt: skip


def start(world: World, definition: dict[str, Any]) -> str:
    return str(world.call("core", "execute-workflow", definition=definition, executionId="w-1")["executionId"])


def test_a_workflows_question_is_a_confirmation_and_its_decision_the_answer(world: World) -> None:
    execution = start(world, APPROVAL)
    (asked,) = world.call("confirm", "list", executionId=execution)["confirmations"]
    assert (asked["title"], asked["approvers"], asked["question"]["choices"]) == ("Go?", ["ada"], ["approve", "reject"])
    assert asked["confirmId"] == confirm_id_of(execution, "ask", 1)
    assert refused(world, "cancel", confirmId=asked["confirmId"], reason="x") == ("conflict", "/confirmId")
    world.call("confirm", "approve", confirmId=asked["confirmId"], by="ada", comment="go")
    ended = world.execution(execution)
    assert (ended.status, ended.step("ask").result) == ("completed", {"choice": "approve", "by": "ada", "why": "go"})
    assert world.call("confirm", "get", confirmId=asked["confirmId"])["question"]["open"] is False


def test_a_rejection_is_the_answer_reject(world: World) -> None:
    execution = start(world, APPROVAL)
    world.call("confirm", "reject", confirmId=confirm_id_of(execution, "ask", 1), by="ada", reason="no")
    assert world.execution(execution).step("ask").result == {"choice": "reject", "by": "ada", "why": "no"}


@pytest.mark.parametrize(("choice", "status"), [(None, "running"), ("skip", "completed")])
def test_an_escalation_asks_people_here(world: World, choice: str | None, status: str) -> None:
    execution = start(world, FAILING)
    confirm = confirm_id_of(execution, "call", 1)
    found = world.call("confirm", "get", confirmId=confirm)
    assert (found["title"], found["data"]["code"]) == ("Broken", "not-found")
    parameters = {"confirmId": confirm, "by": "ada"} | ({"choice": choice} if choice else {})
    world.call("confirm", "approve", parameters)
    # Without a choice it is tried again, fails again, and asks again.
    assert world.execution(execution).status == status
    again = world.state(confirm_id_of(execution, "call", 2))
    assert (again is None) == (choice == "skip")


def test_who_answers_the_workflow_decides_here(world: World) -> None:
    execution = start(world, APPROVAL)
    from services.modules.outgoing import command

    answer = {"step": "ask", "choice": "approve", "by": "bob", "why": "by hand"}
    world.queue.append((command(execution, "answer", answer, id="c-1", source="test", time_us=world.now_us), True))
    world.settle()
    found = world.call("confirm", "get", confirmId=confirm_id_of(execution, "ask", 1))
    assert (found["status"], found["decisions"][0]["by"], found["question"]["open"]) == ("approved", "bob", False)


@pytest.mark.parametrize(("end", "status"), [("deadline", "expired"), ("cancel", "cancelled")])
def test_a_question_ends_with_its_step(world: World, end: str, status: str) -> None:
    execution = start(world, APPROVAL)
    if end == "deadline":
        world.wait(3600)
    else:
        world.call("core", "cancel", executionId=execution)
    assert world.call("confirm", "get", confirmId=confirm_id_of(execution, "ask", 1))["status"] == status


def test_a_new_owner_asks_and_answers_again_and_everything_counts_once(world: World) -> None:
    execution = start(world, APPROVAL)
    confirm = confirm_id_of(execution, "ask", 1)
    world.take_over(0)
    assert len(world.events("confirm.created")) == 1
    before = len(world.queue)
    world.call("confirm", "approve", confirmId=confirm, by="ada")
    world.take_over(0)
    assert len(world.queue) == before
    assert world.execution(execution).status == "completed"
    assert len(world.events("confirm.approved")) == 1
