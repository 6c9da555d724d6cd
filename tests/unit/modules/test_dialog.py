from __future__ import annotations

from typing import Any

import pytest

from services.modules.dialog import decide
from services.modules.dialog.state import TRANSITIONS


def send(modules: Any, dialog: str, sender: str, content: Any = "hello", **more: Any) -> Any:
    return modules.call("dialog", "send-message", {"dialogId": dialog, "sender": sender, "content": content, **more})


def test_a_dialog_between_assignments_knows_who_takes_part(modules: Any) -> None:
    context = modules.context()
    wanted = ["coordinator", {"role": "tester", "agentId": "ada"}]
    assignments = modules.call("role", "assign-roles", contextId=context, roles=wanted).result["assignments"]
    started = modules.call("dialog", "facilitate-communication", participants=assignments)
    assert started.types == ["dialog.started"]
    assert started.result["status"] == "active"
    assert [each["participantId"] for each in started.result["participants"]] == [each["assignmentId"] for each in assignments]
    assert [(each["role"], each["agentId"]) for each in started.result["participants"]] == [("coordinator", None), ("tester", "ada")]


def test_a_dialog_of_one_active_contexts_assignments_lies_in_that_context(modules: Any) -> None:
    room, other = modules.context(), modules.context()
    ours, theirs = (modules.call("role", "assign-roles", contextId=each, roles=["x"]).result["assignments"] for each in (room, other))

    def lies_in(participants: list[Any], **more: Any) -> Any:
        return modules.call("dialog", "facilitate-communication", participants=participants, **more).result["contextId"]

    assert lies_in(ours) == room
    assert lies_in(ours, contextId=other) == other, "what is said counts more"
    assert [lies_in([*ours, *theirs]), lies_in([*ours, "guest"]), lies_in([{"role": "x", "contextId": {"a": 1}}])] == [None] * 3
    modules.call("context", "transition-lifecycle", contextId=room, status="completed")
    assert lies_in(ours) is None, "an ended context takes no dialog, and nobody asked for it"


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({}, ""),
        ({"participants": []}, "/participants"),
        ({"participants": ["a", 5]}, "/participants/1"),
        ({"participants": ["a", {"name": "x"}]}, "/participants/1"),
        ({"participants": ["a", "a"]}, "/participants/1"),
        ({"participants": ["a"], "dialogId": "x"}, ""),
        ({"dialogId": "x", "topic": "y"}, ""),
    ],
)
def test_participants_that_are_none_are_invalid_at_their_place(modules: Any, parameters: dict[str, Any], pointer: str) -> None:
    assert modules.call("dialog", "facilitate-communication", parameters).refused == ("invalid", pointer)


def test_a_dialog_in_a_context_needs_it_active(modules: Any) -> None:
    refused = modules.call("dialog", "facilitate-communication", participants=["a"], contextId="exec-1/context-0")
    assert refused.refused == ("not-found", "/contextId")


def test_messages_stay_in_order_and_are_paged(modules: Any) -> None:
    dialog = modules.dialog()
    sent = [send(modules, dialog, sender, {"n": index}).result for index, sender in enumerate(["ada", "bob", "ada"])]
    assert [each["number"] for each in sent] == [1, 2, 3]
    first = modules.call("dialog", "history", dialogId=dialog, limit=2).result
    assert [(each["sender"], each["content"]) for each in first["messages"]] == [("ada", {"n": 0}), ("bob", {"n": 1})]
    second = modules.call("dialog", "history", dialogId=dialog, after=first["next"]).result
    assert [each["number"] for each in second["messages"]] == [3]
    assert second["next"] is None


def test_only_participants_may_speak(modules: Any) -> None:
    assert send(modules, modules.dialog(), "eve").refused == ("denied", "/sender")


def test_a_participant_may_be_named_by_agent_or_by_a_role_that_nobody_else_has(modules: Any) -> None:
    participants = [
        {"participantId": "p1", "role": "tester", "agentId": "ada"},
        {"participantId": "p2", "role": "coder"},
        {"participantId": "p3", "role": "coder"},
    ]
    dialog = modules.dialog(*participants)
    send(modules, dialog, "ada")
    send(modules, dialog, "tester")
    assert send(modules, dialog, "coder").refused == ("denied", "/sender"), "two have this role"
    said = modules.call("dialog", "history", dialogId=dialog).result["messages"]
    assert [each["sender"] for each in said] == ["p1", "p1"]


def test_a_message_to_some_is_seen_by_them_alone(modules: Any) -> None:
    dialog = modules.dialog("ada", "bob", "eve")
    send(modules, dialog, "ada", "to all")
    send(modules, dialog, "ada", "to bob", recipients=["bob"])

    def seen(participant: str) -> list[str]:
        found = modules.call("dialog", "history", dialogId=dialog, participant=participant).result
        return [each["content"] for each in found["messages"]]

    assert (seen("ada"), seen("bob"), seen("eve")) == (["to all", "to bob"], ["to all", "to bob"], ["to all"])
    assert send(modules, dialog, "ada", recipients=["bob", "zoe"]).refused == ("invalid", "/recipients/1")
    assert modules.call("dialog", "history", dialogId=dialog, participant="zoe").refused == ("invalid", "/participant")


def test_an_answer_names_a_message_of_the_dialog(modules: Any) -> None:
    dialog = modules.dialog()
    asked = send(modules, dialog, "ada", "well?").result["messageId"]
    send(modules, dialog, "bob", "yes", replyTo=asked)
    assert modules.call("dialog", "history", dialogId=dialog).result["messages"][1]["replyTo"] == asked
    assert send(modules, dialog, "bob", replyTo="message-0").refused == ("not-found", "/replyTo")


def test_a_message_says_something(modules: Any) -> None:
    assert send(modules, modules.dialog(), "ada", None).refused == ("invalid", "/content")


def test_participants_join_once(modules: Any) -> None:
    dialog = modules.dialog("ada")
    added = modules.call("dialog", "add-participants", dialogId=dialog, participants=["ada", "bob"])
    assert added.types == ["dialog.participants-added"]
    assert added.result["added"] == ["bob"]
    assert [each["participantId"] for each in added.result["participants"]] == ["ada", "bob"]
    send(modules, dialog, "bob")
    again = modules.call("dialog", "add-participants", dialogId=dialog, participants=["bob"])
    assert (again.types, again.result["added"]) == ([], [])
    twice = modules.call("dialog", "add-participants", dialogId=dialog, participants=["x", "x"])
    assert twice.refused == ("invalid", "/participants/1")


def test_a_paused_dialog_is_taken_up_again(modules: Any) -> None:
    dialog = modules.dialog()
    assert modules.call("dialog", "end", dialogId=dialog, status="paused").types == ["dialog.paused"]
    assert send(modules, dialog, "ada").refused == ("conflict", "/dialogId")
    resumed = modules.call("dialog", "facilitate-communication", dialogId=dialog)
    assert (resumed.types, resumed.result["status"]) == (["dialog.resumed"], "active")
    send(modules, dialog, "ada")


@pytest.mark.parametrize("before", TRANSITIONS)
@pytest.mark.parametrize("after", TRANSITIONS)
def test_the_life_cycle_follows_its_table(modules: Any, before: str, after: str) -> None:
    dialog = modules.dialog()
    for status in {"active": [], "archived": ["ended", "archived"]}.get(before, [before]):
        modules.call("dialog", "end", dialogId=dialog, status=status)
    if after == "active":
        answer = modules.call("dialog", "facilitate-communication", dialogId=dialog)
    else:
        answer = modules.call("dialog", "end", dialogId=dialog, status=after)
    if after in TRANSITIONS[before]:  # type: ignore[index]
        assert answer.result["status"] == after
    else:
        assert answer.error.code == "conflict"


def test_what_was_said_in_an_ended_dialog_stays(modules: Any) -> None:
    dialog = modules.dialog()
    send(modules, dialog, "ada", "bye")
    modules.call("dialog", "end", dialogId=dialog)
    assert modules.call("dialog", "history", dialogId=dialog).result["messages"][0]["content"] == "bye"
    assert modules.call("dialog", "add-participants", dialogId=dialog, participants=["x"]).refused == ("conflict", "/dialogId")


@pytest.mark.parametrize("name", ["MESSAGES_MAX", "CONTENT_BYTES_MAX"])
def test_a_dialog_has_a_greatest_size(modules: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(decide, name, 1 if name == "MESSAGES_MAX" else len('"hello"') + 1)
    dialog = modules.dialog()
    send(modules, dialog, "ada")
    assert send(modules, dialog, "ada").refused == ("payload.too-large", "/dialogId")


@pytest.mark.parametrize("operation", ["send-message", "history", "add-participants", "end", "facilitate-communication"])
def test_an_unknown_dialog_is_not_found(modules: Any, operation: str) -> None:
    more: dict[str, Any] = {"send-message": {"sender": "a", "content": 1}, "add-participants": {"participants": ["a"]}}.get(operation, {})
    assert modules.call("dialog", operation, dialogId="exec-1/dialog-0", **more).refused == ("not-found", "/dialogId")


def test_what_somebody_said_is_still_found_when_he_has_left(modules: Any) -> None:
    dialog = modules.dialog()
    send(modules, dialog, "ada", "hello")
    modules.call("dialog", "remove-participants", dialogId=dialog, participants=["ada"])
    said = modules.call("dialog", "history", dialogId=dialog, participant="ada").result["messages"]
    assert [each["content"] for each in said] == ["hello"]
    assert modules.call("dialog", "history", dialogId=dialog, participant="zoe").refused == ("invalid", "/participant")


def test_only_a_paused_dialog_is_taken_up_again(modules: Any) -> None:
    again = modules.call("dialog", "facilitate-communication", dialogId=modules.dialog())
    assert again.refused == ("conflict", "/dialogId")


def test_a_page_of_long_messages_is_shorter(modules: Any) -> None:
    dialog = modules.dialog()
    for number in range(5):
        send(modules, dialog, "ada", {"number": number, "text": "x" * 400_000})
    numbers, after = [], 0
    while after is not None:
        page = modules.call("dialog", "history", dialogId=dialog, after=after).result
        numbers += [each["content"]["number"] for each in page["messages"]]
        after = page["next"]
    assert numbers == [0, 1, 2, 3, 4]
