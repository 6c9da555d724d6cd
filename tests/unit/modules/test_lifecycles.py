"""Every arrow of every table of states is taken by some sequence of calls, and nothing but these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from streams.records import ModuleMessage
from tests.unit.modules.observing import LIFECYCLES, Observer
from tests.unit.modules.world import Refused, World


def paths(lifecycle: str, start: str) -> list[list[str]]:
    """For each arrow the states to go through from `start`, the arrow last."""
    table = LIFECYCLES[lifecycle].table
    reach: dict[str, list[str]] = {start: []}
    waiting = [start]
    for state in waiting:
        for after in table[state]:
            if after not in reach:
                reach[after] = [*reach[state], after]
                waiting.append(after)
    return [[*reach[before], after] for before in reach for after in table[before]]


def contexts(world: World) -> None:
    for path in paths("context", "active"):
        context = world.call("context", "create-context", name="room")["contextId"]
        for status in path:
            world.call("context", "transition-lifecycle", contextId=context, status=status)


def plans(world: World) -> None:
    context = world.call("context", "create-context", name="room")["contextId"]
    moves: dict[str, tuple[str, dict[str, Any]]] = {
        "approved": ("approve-plan", {}),
        "active": ("activate-plan", {}),
        "paused": ("activate-plan", {"status": "paused"}),
        "completed": ("complete-plan", {}),
        "failed": ("complete-plan", {"status": "failed"}),
        "cancelled": ("cancel-plan", {}),
        "archived": ("cancel-plan", {"status": "archived"}),
        "draft": ("update-task", {"taskId": "b", "name": "more"}),
    }
    for path in paths("plan", "draft"):
        plan = world.call("plan", "create-plan", contextId=context, tasks=[{"taskId": "a"}])["planId"]
        for status in path:
            if status == "completed":
                world.call("plan", "update-task", planId=plan, taskId="a", status="completed")
            operation, more = moves[status]
            world.call("plan", operation, planId=plan, **more)
    for path in paths("task", "pending"):
        plan = world.call("plan", "create-plan", contextId=context, tasks=[{"taskId": "a"}])["planId"]
        world.call("plan", "approve-plan", planId=plan)
        world.call("plan", "activate-plan", planId=plan)
        for status in path:
            world.call("plan", "update-task", planId=plan, taskId="a", status=status)


def roles(world: World) -> None:
    context = world.call("context", "create-context", name="room")["contextId"]
    for number, path in enumerate(paths("role", "active")):
        role = world.call("role", "create-role", contextId=context, name=f"r{number}")["roleId"]
        for status in path:
            world.call("role", "update-role", roleId=role, status=status)


def traces(world: World) -> None:
    context = world.call("context", "create-context", name="room")["contextId"]
    for (status,) in paths("trace", "running"):
        trace = world.call("trace", "start-monitoring", contextId=context)["traceId"]
        world.call("trace", "stop-monitoring", traceId=trace, status=status)


def dialogs(world: World) -> None:
    for path in paths("dialog", "active"):
        dialog = world.call("dialog", "facilitate-communication", participants=["ada", "bob"])["dialogId"]
        for status in path:
            if status == "active":
                world.call("dialog", "facilitate-communication", dialogId=dialog)
            else:
                world.call("dialog", "end", dialogId=dialog, status=status)


def confirmations(world: World) -> None:
    def moved(status: str, confirm: str) -> None:
        match status:
            case "in_review":
                world.call("confirm", "escalate", confirmId=confirm, to=["eve"])
            case "approved":
                world.call("confirm", "approve", confirmId=confirm, by="ada")
            case "rejected":
                world.call("confirm", "reject", confirmId=confirm, by="ada", reason="no")
            case "cancelled":
                world.call("confirm", "cancel", confirmId=confirm, reason="over")
            case "expired":
                world.wait(60)
            case _:
                world.call("confirm", "resubmit", confirmId=confirm)

    for path in paths("confirmation", "pending"):
        confirm = world.call("confirm", "create", title="?", expiresIn="60s")["confirmId"]
        for status in path:
            moved(status, confirm)


def collaborations(world: World) -> None:
    for path in paths("collaboration", "pending"):
        collab = world.call("collab", "create", name="team", participants=["ada"])["collabId"]
        for status in path:
            if status == "active":
                world.call("collab", "join", collabId=collab, participantId="bob")
            else:
                world.call("collab", "end", collabId=collab, status=status)
    for path in paths("shared task", "assigned"):
        collab = world.call("collab", "create", name="team", participants=["ada", "bob"])["collabId"]
        task = world.call("collab", "assign-task", collabId=collab, title="dig", assignee="ada")["task"]["taskId"]
        for status in path:
            if status == "assigned":
                world.call("collab", "assign-task", collabId=collab, taskId=task, assignee="bob")
            else:
                world.call("collab", "update-task", collabId=collab, taskId=task, status=status)


def networks(world: World) -> None:
    network = world.call("network", "create-network", name="net")["networkId"]
    for start in ("online", "connecting"):
        for number, path in enumerate(paths("node", start)):
            node = f"{start}-{number}"
            world.call("network", "add-node", networkId=network, nodeId=node, status=start)
            for status in path:
                world.call("network", "update-node", networkId=network, nodeId=node, status=status)


def extensions(world: World) -> None:
    moves = {"active": "activate", "inactive": "deactivate", "disabled": "disable"}
    for number, path in enumerate(paths("extension", "installed")):
        extension = world.call("extension", "install", name=f"e{number}", entryPoint="x")["extensionId"]
        for before, status in zip(["installed", *path], path, strict=False):
            if status == "error" and before == "active":
                request = world.ask("extension", "health", {"extensionId": extension})
                world.reply(world.elsewhere.pop(), error="broken")
            elif status == "error":
                request = world.ask("extension", "activate", {"extensionId": extension})
                world.reply(world.elsewhere.pop(), error="broken")
            else:
                request = world.ask("extension", moves[status], {"extensionId": extension})
                if world.elsewhere:
                    world.reply(world.elsewhere.pop(), {})
            assert request in world.responses


def hub_modules(world: World) -> None:
    moves = {"serving": "start", "draining": "drain", "stopped": "stop"}
    for number, path in enumerate(paths("module", "serving")):
        world.call("hub", "register", module=f"m{number}", operations={})
        for status in path:
            world.call("hub", moves[status], module=f"m{number}")


def coordinations(world: World) -> None:
    world.call("hub", "register", module="far", operations={"do": {}, "undo": {}})
    context = {"id": "context", "module": "context", "operation": "create-context", "parameters": {"name": "x"}}
    bad = {"id": "bad", "module": "context", "operation": "get-context", "parameters": {"contextId": "hub/none"}}
    delete = {"operation": "delete-context", "parameters": {"contextId": "${context.result.contextId}"}}
    far = {"id": "far", "module": "far", "operation": "do"}

    def coordinate(*calls: dict[str, Any], **more: Any) -> str:
        return world.ask("hub", "coordinate", {"calls": list(calls), "timeout": "10s", **more})

    coordinate(context)
    coordinate(context, bad)
    coordinate(bad, {**context, "dependsOn": ["bad"]})
    coordinate({**context, "compensate": delete}, {**bad, "dependsOn": ["context"]}, allOrNothing=True)
    coordinate(context, {**bad, "dependsOn": ["context"]}, allOrNothing=True)
    coordinate({**far, "compensate": {"operation": "undo"}}, {**bad, "dependsOn": ["far"]}, allOrNothing=True)
    world.reply(world.elsewhere.pop(), {})
    world.reply(world.elsewhere.pop(), error="stuck")
    undone = {**far, "retries": 1, "compensate": {"operation": "undo"}}
    for seconds in (0, 1):  # an attempt says that it was done, late, while the next is waited for, or under way
        coordinate({**undone, "timeout": "1s"}, {**bad, "dependsOn": ["far"]}, allOrNothing=True)
        world.reply(world.elsewhere.pop(), {})
        world.wait(1)
        world.wait(seconds)
        world.reply(world.elsewhere.pop(0), {})
        world.elsewhere.clear()
    coordinate({**far, "retries": 3})
    world.reply(world.elsewhere.pop(), error="busy", retryable=True)
    world.wait(1)
    world.reply(world.elsewhere.pop(), {})
    coordinate({**far, "retries": 3})
    world.reply(world.elsewhere.pop(), error="busy", retryable=True)
    world.now_us += 60_000_000  # nobody was there when it was time to try again
    world.wait(0)
    coordinate(far)
    world.wait(20)
    late_answers(world, coordinate)


def late_answers(world: World, coordinate: Callable[..., str]) -> None:
    """What is known late only is undone late."""

    def far(undo: bool = True, retries: int = 0) -> ModuleMessage:
        call = {"id": "far", "module": "far", "operation": "do", "retries": retries, "timeout": "1s"}
        world.elsewhere.clear()
        coordinate({**call, "compensate": {"operation": "undo"}} if undo else call, allOrNothing=True)
        return world.elsewhere.pop()

    request = far()
    world.wait(1)
    world.reply(request, {})  # the whole had failed
    world.wait(30)  # and so does the undoing, which says late that it was done
    world.reply(world.elsewhere.pop(), {})
    request = far(retries=1)
    world.wait(2)
    again = world.elsewhere.pop()
    world.reply(again, error="broken")
    world.reply(request, {})
    world.reply(world.elsewhere.pop(), {})
    request = far(retries=1)
    world.wait(3)
    for message in (world.elsewhere.pop(), request):
        world.reply(message, {})
        world.reply(world.elsewhere.pop(), {})


SCRIPTS: list[Callable[[World], None]] = [
    contexts, plans, roles, traces, dialogs, confirmations, collaborations, networks, extensions, hub_modules, coordinations,
]  # fmt: skip


def test_no_transition_is_never_taken() -> None:
    taken: set[tuple[str, str, str]] = set()
    for script in SCRIPTS:
        world = World(checked=False)
        observer = Observer()
        world.modules[0].check_state = observer
        script(world)
        taken |= observer.taken
    wanted = {(noun, before, after) for noun, lifecycle in LIFECYCLES.items() for before, after in lifecycle.arrows()}
    assert wanted - taken == set()


def test_the_observer_sees_what_no_table_allows() -> None:
    world = World()
    observer = Observer()
    context = world.call("context", "create-context", name="room")["contextId"]
    world.call("context", "transition-lifecycle", contextId=context, status="terminated")
    ended = world.state(context)
    world.call("context", "create-context", name="other")
    observer(replace(ended, status="active"))
    observer(ended)
    with pytest.raises(AssertionError, match="terminated to suspended"):
        observer(replace(ended, status="suspended"))


def test_what_the_table_does_not_allow_is_refused() -> None:
    world = World()
    context = world.call("context", "create-context", name="room")["contextId"]
    plan = world.call("plan", "create-plan", contextId=context, tasks=[{"taskId": "a"}])["planId"]
    with pytest.raises(Refused) as refused:
        world.call("plan", "activate-plan", planId=plan)
    assert (refused.value.code, refused.value.pointer) == ("conflict", "/planId")
