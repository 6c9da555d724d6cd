from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from services.modules.role.permissions import evaluate
from services.modules.role.state import TRANSITIONS, Role


def assign(modules: Any, context: str, *roles: Any) -> Any:
    return modules.call("role", "assign-roles", contextId=context, roles=list(roles))


def test_roles_that_are_not_there_are_created_and_assigned_in_the_order_asked(modules: Any) -> None:
    context = modules.context()
    answer = assign(modules, context, "coordinator", "executor", "reviewer")
    assert answer.types == ["role.created", "role.assigned"] * 3
    assignments = answer.result["assignments"]
    assert [each["role"] for each in assignments] == ["coordinator", "executor", "reviewer"]
    assert len({each["assignmentId"] for each in assignments}) == len({each["roleId"] for each in assignments}) == 3
    assert all(each["contextId"] == context and each["agentId"] is None for each in assignments)
    assert all(each["assignmentId"].startswith("exec-1/roles-") for each in assignments)


def test_a_role_that_is_there_is_assigned_again_without_being_created(modules: Any) -> None:
    context = modules.context()
    first = assign(modules, context, {"role": "tester", "agentId": "ada"}).result["assignments"][0]
    second = assign(modules, context, {"role": "tester", "agentId": "bob"})
    assert second.types == ["role.assigned"]
    assert second.result["assignments"][0]["roleId"] == first["roleId"]
    listed = modules.call("role", "list-roles", contextId=context).result["roles"]
    assert [each["agentId"] for each in listed[0]["assignments"]] == ["ada", "bob"]


def test_an_assignment_that_has_expired_already_is_refused(modules: Any) -> None:
    context = modules.context()
    past = (modules.now - timedelta(seconds=1)).isoformat()
    again = assign(modules, context, "reviewer", {"role": "tester", "agentId": "ada", "expiresAt": past})
    assert again.refused == ("invalid", "/roles/1/expiresAt")
    assert modules.call("role", "list-roles", contextId=context).result["total"] == 0, "all or nothing"


def test_the_same_agent_gets_a_role_once(modules: Any) -> None:
    context = modules.context()
    again = assign(modules, context, {"role": "tester", "agentId": "ada"}, {"role": "tester", "agentId": "ada"})
    assert again.refused == ("conflict", "/roles/1")
    assert modules.call("role", "list-roles", contextId=context).result["total"] == 0, "all or nothing"


def test_roles_need_an_active_context(modules: Any) -> None:
    assert assign(modules, "exec-1/context-0", "a").refused == ("not-found", "/contextId")
    context = modules.context()
    modules.call("context", "transition-lifecycle", contextId=context, status="suspended")
    assert assign(modules, context, "a").refused == ("conflict", "/contextId")


@pytest.mark.parametrize(
    ("roles", "pointer"),
    [
        ([], "/roles"),
        (["a", ""], "/roles/1"),
        (["a", 5], "/roles/1"),
        ([{"agentId": "x"}], "/roles/0"),
        ([{"role": "x", "permissions": ["has space"]}], "/roles/0/permissions/0"),
        ("coordinator", "/roles"),
        (None, "/roles"),
    ],
)
def test_roles_that_are_none_are_invalid_at_their_place(modules: Any, roles: Any, pointer: str) -> None:
    assert modules.call("role", "assign-roles", {"contextId": modules.context(), "roles": roles}).refused == ("invalid", pointer)


def test_a_role_without_a_context_is_a_pattern_for_the_contexts_of_the_home(modules: Any) -> None:
    pattern = modules.call("role", "create-role", name="auditor", permissions=["trace.*"], description="looks on")
    assert pattern.result["contextId"] is None
    context = modules.context()
    given = assign(modules, context, "auditor").result["assignments"][0]
    assert given["roleId"] != pattern.result["roleId"]
    answer = modules.call("role", "check-permission", assignmentId=given["assignmentId"], permission="trace.read").result
    assert answer["allowed"] is True
    assert answer["grants"] == [{"roleId": given["roleId"], "role": "auditor", "pattern": "trace.*"}]


def test_a_name_is_unique_in_its_scope(modules: Any) -> None:
    context = modules.context()
    modules.call("role", "create-role", name="a", contextId=context)
    assert modules.call("role", "create-role", name="a", contextId=context).refused == ("conflict", "/name")
    assert modules.call("role", "create-role", name="a", contextId=modules.context()).types == ["role.created"]


def test_a_role_keeps_its_permissions_when_assigned_with_others(modules: Any) -> None:
    context = modules.context()
    modules.call("role", "create-role", name="a", contextId=context, permissions=["x"])
    refused = assign(modules, context, {"role": "a", "permissions": ["y"]})
    assert refused.refused == ("conflict", "/roles/0/permissions")


def test_an_inactive_role_becomes_active_when_it_is_assigned(modules: Any) -> None:
    context = modules.context()
    modules.call("role", "create-role", name="a", contextId=context, status="inactive")
    assert assign(modules, context, "a").types == ["role.activated", "role.assigned"]


@pytest.mark.parametrize("status", ["suspended", "deprecated"])
def test_a_suspended_or_deprecated_role_is_not_assigned(modules: Any, status: str) -> None:
    context = modules.context()
    modules.call("role", "create-role", name="a", contextId=context, status=status)
    assert assign(modules, context, "a").refused == ("conflict", "/roles/0")


def test_a_revoked_assignment_is_gone_and_the_others_stay(modules: Any) -> None:
    context = modules.context()
    ada, bob = assign(modules, context, {"role": "a", "agentId": "ada"}, {"role": "a", "agentId": "bob"}).result["assignments"]
    revoked = modules.call("role", "revoke-role", assignmentId=ada["assignmentId"], reason="left")
    assert revoked.types == ["role.revoked"]
    assert revoked.result["revoked"] == [ada["assignmentId"]]
    assert [each["agentId"] for each in revoked.result["role"]["assignments"]] == ["bob"]
    assert modules.call("role", "revoke-role", assignmentId=ada["assignmentId"]).refused == ("not-found", "/assignmentId")
    assert modules.call("role", "revoke-role", roleId=bob["roleId"], status="deprecated").types == ["role.revoked", "role.deprecated"]
    assert modules.call("role", "revoke-role", roleId=bob["roleId"]).refused == ("conflict", "/roleId")


@pytest.mark.parametrize("before", TRANSITIONS)
@pytest.mark.parametrize("after", TRANSITIONS)
def test_the_life_cycle_follows_its_table(modules: Any, before: str, after: str) -> None:
    role = modules.call("role", "create-role", name="a", status=before).result["roleId"]
    answer = modules.call("role", "revoke-role", roleId=role, status=after)
    if after in TRANSITIONS[before]:  # type: ignore[index]
        assert answer.result["role"]["status"] == after
    else:
        assert answer.error.code == "conflict"


@pytest.mark.parametrize("given", [{}, {"roleId": "a", "assignmentId": "b"}])
def test_revoking_names_one_thing(modules: Any, given: dict[str, str]) -> None:
    assert modules.call("role", "revoke-role", given).refused == ("invalid", "")


@pytest.mark.parametrize(
    "subject", [{}, {"contextId": "c"}, {"agentId": "a"}, {"roleId": "r", "assignmentId": "a"}, {"roleId": "r", "agentId": "a"}]
)
def test_a_permission_is_checked_for_one_subject(modules: Any, subject: dict[str, str]) -> None:
    assert modules.call("role", "check-permission", {"permission": "x", **subject}).refused == ("invalid", "")


def test_an_agent_has_what_all_its_roles_in_the_context_permit(modules: Any) -> None:
    context = modules.context()
    modules.call("role", "create-role", name="planner", contextId=context, permissions=["plan.*", "!plan.approve"])
    modules.call("role", "create-role", name="chief", contextId=context, permissions=["plan.approve", "role.*"])
    assign(
        modules, context, {"role": "planner", "agentId": "ada"}, {"role": "chief", "agentId": "ada"}, {"role": "chief", "agentId": "bob"}
    )

    def allowed(agent: str, permission: str) -> bool:
        answer = modules.call("role", "check-permission", contextId=context, agentId=agent, permission=permission)
        return bool(answer.result["allowed"])

    assert allowed("ada", "plan.create")
    assert allowed("ada", "role.assign")
    assert not allowed("ada", "plan.approve"), "what forbids beats what permits"
    assert allowed("bob", "plan.approve")
    assert not allowed("bob", "plan.create")
    assert not allowed("eve", "plan.create")


def test_an_unknown_role_or_assignment_is_not_found(modules: Any) -> None:
    assert modules.call("role", "check-permission", roleId="exec-1/x/y", permission="p").refused == ("not-found", "/roleId")
    assert modules.call("role", "check-permission", assignmentId="exec-1/x", permission="p").refused == ("not-found", "/assignmentId")
    unknown = modules.call("role", "check-permission", contextId="exec-1/x", agentId="a", permission="p")
    assert unknown.refused == ("not-found", "/contextId")


def test_roles_of_all_contexts_are_listed_by_state(modules: Any) -> None:
    modules.call("role", "create-role", name="a", contextId=modules.context())
    modules.call("role", "create-role", name="b", contextId=modules.context(), status="suspended")
    assert modules.call("role", "list-roles").result["total"] == 2
    assert [each["name"] for each in modules.call("role", "list-roles", status="suspended").result["roles"]] == ["b"]
    assert modules.call("role", "list-roles", contextId="exec-1/x").refused == ("not-found", "/contextId")


def role(name: str, *permissions: str, status: Any = "active") -> Role:
    return Role(role_id=name, name=name, description="", permissions=permissions, status=status, created_us=0)


@pytest.mark.parametrize(
    ("permission", "patterns", "allowed"),
    [
        ("plan.approve", ("plan.approve",), True),
        ("plan.approve", ("plan.*",), True),
        ("plan.approve", ("*",), True),
        ("plan.approve", ("*.approve",), True),
        ("plan.approve", ("plan",), False),
        ("plan.approve", (), False),
        ("plan.approve", ("plan.*", "!plan.approve"), False),
        ("plan.approve", ("!plan.*", "plan.approve"), False),
        ("plan.approve", ("!role.*", "*"), True),
        ("plan.x", ("plan.?",), False),
        ("plan.a", ("plan.[a]",), False),
        ("Plan.Approve", ("plan.approve",), False),
    ],
)
def test_patterns(permission: str, patterns: tuple[str, ...], allowed: bool) -> None:
    assert evaluate(permission, [role("r", *patterns)]).allowed is allowed


def test_only_active_roles_count_and_the_reason_names_the_others() -> None:
    verdict = evaluate("x", [role("sleeper", "*", status="suspended")])
    assert not verdict.allowed
    assert "sleeper (suspended)" in verdict.reason


@pytest.mark.parametrize(("end", "status"), [("suspended", "suspended"), ("terminated", "terminated"), (None, "gone")])
def test_the_roles_of_a_context_that_is_not_active_permit_nothing_whoever_asks(modules: Any, end: str | None, status: str) -> None:
    context = modules.context()
    modules.call("role", "create-role", name="chief", contextId=context, permissions=["*"])
    (given,) = assign(modules, context, {"role": "chief", "agentId": "ada"}).result["assignments"]
    subjects = [{"roleId": given["roleId"]}, {"assignmentId": given["assignmentId"]}, {"contextId": context, "agentId": "ada"}]
    if end is None:
        modules.call("context", "delete-context", contextId=context)
        unknown = modules.call("role", "check-permission", permission="plan.approve", **subjects.pop())
        assert unknown.refused == ("not-found", "/contextId")
    else:
        modules.call("context", "transition-lifecycle", contextId=context, status=end)
    for subject in subjects:
        answer = modules.call("role", "check-permission", permission="plan.approve", **subject).result
        assert (answer["allowed"], answer["reason"]) == (False, f"The context is {status}: its roles permit nothing.")
