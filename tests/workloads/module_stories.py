"""Stories that make the modules write every shape of records that they can. `module_histories` keeps what they have written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from streams.log.types import Send
from streams.records import ModuleMessage, from_micros
from streams.topics import REQUESTS, partition_of
from tests.unit.modules.test_lifecycles import SCRIPTS
from tests.unit.modules.world import Refused, World

DAY_S = 24 * 3600.0
ASKING: dict[str, Any] = {"id": "w", "name": "Asks", "steps": [{"id": "go", "type": "approval", "title": "?"}]}


def _life_cycles(script: Callable[[World], None]) -> World:
    world = World(checked=False)
    script(world)
    return world


def rooms() -> World:
    """Contexts with their roles: changed, assigned, separated, taken away."""
    world = World(checked=False)
    context = world.call("context", "create-context", name="room", type="lab", description="d", metadata={"a": [1, None]})["contextId"]
    world.call("context", "update-context", contextId=context, name="hall", metadata={"b": {"c": True}})
    role = world.call("role", "create-role", contextId=context, name="author", permissions=["plan.*", "!plan.approve"])["roleId"]
    world.call("role", "separate-duties", contextId=context, name="four-eyes", roles=["author", "reviewer"])
    wanted = [{"role": "author", "agentId": "ada", "expiresAt": "2030-01-01T00:00:00Z"}, "reader", {"role": "reviewer", "agentId": "bob"}]
    given = world.call("role", "assign-roles", contextId=context, roles=wanted)["assignments"]
    world.call("role", "update-role", roleId=role, description="writes", permissions=["plan.create-plan"])
    world.call("role", "revoke-role", assignmentId=given[0]["assignmentId"], reason="done")
    world.call("role", "delete-role", roleId=given[1]["roleId"], reason="nobody reads")
    gone = world.call("context", "create-context", name="gone")["contextId"]
    world.call("context", "delete-context", contextId=gone, reason="a mistake")
    ended = world.call("context", "create-context", name="ended")["contextId"]
    world.call("context", "transition-lifecycle", contextId=ended, status="terminated", reason="over")
    world.wait(2 * DAY_S)
    return world


def decisions() -> World:
    """Confirmations of people: votes, delegation, timers, callers that wait; and a team that votes."""
    world = World(checked=False)
    steps = [{"after": "10m", "to": ["chief"]}, {"after": "1h", "to": ["board"]}]
    create = partial(world.call, "confirm", "create")
    create(title="late?", approvers=["ada"], escalation=steps, expiresIn="2h", data={"price": 1})
    two = create(title="two?", description="d", requestedBy="eve", approvers=["ada", "bob"], quorum=2)["confirmId"]
    world.call("confirm", "update", confirmId=two, title="really two?", approvers=["ada", "bob", "dan"])
    world.call("confirm", "delegate", confirmId=two, by="ada", to="eve", reason="away")
    world.call("confirm", "approve", confirmId=two, by="eve", comment="fine")
    world.call("confirm", "reject", confirmId=two, by="bob", reason="no")
    world.call("confirm", "approve", confirmId=two, by="dan")
    world.ask("confirm", "create", {"title": "wait?", "wait": True, "expiresIn": "1m"})
    world.wait(3 * 3600)
    team = world.call("collab", "create", name="team", description="d", participants=["ada", {"participantId": "bob", "role": "x"}])[
        "collabId"
    ]
    world.call("collab", "update", collabId=team, name="crew")
    world.call("collab", "join", collabId=team, participantId="eve", role="guest")
    world.call("collab", "propose", collabId=team, title="Go?", by="ada", options=["yes", "no", "later"])
    for who, choice in (("ada", "yes"), ("bob", "later"), ("eve", "yes")):
        world.call("collab", "decide", collabId=team, title="Go?", by=who, choice=choice, reason="so")
    world.call("collab", "leave", collabId=team, participantId="eve", reason="tired")
    world.call("collab", "end", collabId=team)
    world.wait(2 * DAY_S)
    return world


def talks() -> World:
    """Dialogs with turns, and a network that routes messages."""
    world = World(checked=False)
    dialog = world.call("dialog", "facilitate-communication", participants=["ada", "bob"], topic="t", turnTaking="round-robin")["dialogId"]
    sent = world.call("dialog", "send-message", dialogId=dialog, sender="ada", content={"text": "hello"}, recipients=["bob"])
    world.call("dialog", "send-message", dialogId=dialog, sender="bob", content="so", replyTo=sent["messageId"])
    world.call("dialog", "pass-turn", dialogId=dialog, by="ada")
    world.call("dialog", "add-participants", dialogId=dialog, participants=[{"participantId": "p", "role": "guest", "agentId": "eve"}])
    world.call("dialog", "update-dialog", dialogId=dialog, topic="other", turnTaking="free")
    world.call("dialog", "remove-participants", dialogId=dialog, participants=["p"], reason="late")
    network = world.call("network", "create-network", name="net", description="d")["networkId"]
    for node in "abc":
        world.call("network", "add-node", networkId=network, nodeId=node, role="r", address="here")
    for start, end, weight in (("a", "b", 1), ("b", "c", 2.5), ("a", "c", 5)):
        world.call("network", "connect", {"networkId": network, "from": start, "to": end, "weight": weight})
    world.call("network", "route-message", {"networkId": network, "from": "a", "to": "c", "message": {"n": 1}})
    world.call("network", "disconnect", {"networkId": network, "from": "a", "to": "c"})
    world.call("network", "add-node", networkId=network, nodeId="beat", heartbeatInterval="10s")
    world.call("network", "heartbeat", networkId=network, nodeId="beat")
    world.wait(60)
    world.call("network", "heartbeat", networkId=network, nodeId="beat")
    world.call("network", "remove-node", networkId=network, nodeId="c", reason="old")
    world.call("network", "update-network", networkId=network, name="web")
    gone = world.call("network", "create-network", name="gone")["networkId"]
    world.call("network", "delete-network", networkId=gone, reason="a mistake")
    return world


def runs() -> World:
    """Plans that are run and traced, workflows of the module core, questions of workflows, and lists over partitions."""
    world = World(partitions=2, checked=False)
    context = world.call("context", "create-context", name="room")["contextId"]
    make = {"module": "context", "operation": "create-context"}
    tasks = [
        {"taskId": "a", **make, "parameters": {"name": "a"}, "durationMs": 5},
        {"taskId": "paint", "assignee": "ada", "dependencies": [{"taskId": "a", "type": "start-to-start"}]},
        {"taskId": "b", **make, "parameters": {"name": "b"}, "dependencies": ["a", "paint"]},
        {"taskId": "odd"},
    ]
    roles = ["ada", {"role": "tester"}]
    plan = world.call("plan", "create-plan", contextId=context, name="p", description="d", assignedRoles=roles, tasks=tasks)["planId"]
    world.call("plan", "update-plan", planId=plan, name="q", assignedRoles=["bob"])
    world.call("plan", "update-task", planId=plan, taskId="a", name="first")
    world.call("plan", "remove-task", planId=plan, taskId="odd")
    trace = world.call("trace", "start-monitoring", planId=plan, contextId=context, name="watch")["traceId"]
    world.call("plan", "approve-plan", planId=plan, by="eve", comment="good")
    run = world.call("plan", "run-plan", planId=plan)["executionId"]
    (asked,) = world.call("confirm", "list", executionId=run)["confirmations"]
    world.call("confirm", "approve", confirmId=asked["confirmId"], by="ada", choice="done")
    world.call(
        "trace", "record", traceId=trace, type="progress", name="hand", span="s", severity="warning", durationMs=1.5, data={"n": [1]}
    )
    world.call("trace", "stop-monitoring", traceId=trace)
    world.call("plan", "delete-plan", planId=plan, reason="done")
    kept = world.call("core", "create-workflow", definition={"workflow": ASKING})["workflowId"]
    begun = world.call("core", "execute-workflow", workflowId=kept, input={"a": 1})["executionId"]
    world.call("trace", "start-monitoring", executionId=begun)
    world.call("core", "cancel", executionId=begun)
    world.call("core", "delete-workflow", workflowId=kept, reason="old")
    with contextlib.suppress(Refused):
        world.call("core", "get-workflow-status", executionId="ghost")
    world.away = {1 - partition_of("home", 2)}
    world.ask("context", "list-contexts", {"name": "room"})
    world.wait(60)
    world.away = set()
    world.wait(2 * DAY_S)
    return world


def partings() -> World:
    """Plans whose runs are told to end and do not hear it yet: some go on as drafts, some are deleted."""
    world = World(partitions=2, checked=False)
    for number in range(8):  # of which some have an orchestrator that is away
        plan = world.call("plan", "create-plan", name=f"p{number}", tasks=[{"taskId": "paint"}])["planId"]
        world.call("plan", "approve-plan", planId=plan)
        world.call("plan", "run-plan", planId=plan)
        world.away = {1 - partition_of("home", 2)}
        if number % 2:
            world.call("plan", "complete-plan", planId=plan, status="failed")
            world.call("plan", "update-task", planId=plan, taskId="paint", name="paint it red")
        else:
            world.call("plan", "cancel-plan", planId=plan)
            world.call("plan", "delete-plan", planId=plan)
        world.away = set()
    world.take_over(partition_of("home", 2))
    return world


def messages() -> World:
    """The hub: registrations with leases, messages that are answered, late or never, broadcasts, and a rebuild."""
    world = World(partitions=2, checked=False)
    register = partial(world.call, "hub", "register", module="shop")
    register(operations={"sell": {}, "refund": {}}, lease="30s", instance="shop-1", description="sells", detail={"n": 1})
    register(operations={"sell": {}, "refund": {}}, lease="30s", instance="shop-2")
    register(operations={"sell": {}, "refund": {}}, lease="30s", instance="shop-1", detail={"n": 2})
    world.call("hub", "unregister", module="shop", instance="shop-2", reason="drained")
    world.ask("hub", "send", {"module": "shop", "operation": "sell", "parameters": {"sku": 1}, "timeout": "5s"})
    world.reply(world.elsewhere.pop(), {"sold": True})
    world.ask("hub", "send", {"module": "shop", "operation": "sell", "timeout": "5s"})
    world.wait(5)
    world.reply(world.elsewhere.pop(), {"sold": "late"})
    for who in ("ada", "bob", "eve"):
        world.call("hub", "subscribe", subscriber=who, types=["order.*"], source="shop*")
    world.call("hub", "unsubscribe", subscriber="eve")
    world.ask("hub", "broadcast", {"type": "order.paid", "source": "shop-1", "data": {"n": 1}, "timeout": "10s"})
    told = {message.subject: message for message in world.broadcasts}
    for message in told.values():
        world.receive(message, "ada")
    world.wait(11)
    for message in told.values():
        world.receive(message, "bob")
    world.call("hub", "rebuild", reason="a check")
    world.wait(60)
    world.call("hub", "unregister", module="shop", reason="closed")
    world.wait(2 * DAY_S)
    return world


def hosts() -> World:
    """Extensions: asked for their health, changed, uninstalled."""
    world = World(checked=False)
    parameters = {"name": "e", "entryPoint": "x", "version": "1.0", "config": {"a": 1}, "capabilities": ["c"], "description": "d"}
    extension = world.call("extension", "install", parameters)["extensionId"]
    for operation in ("activate", "health"):
        world.ask("extension", operation, {"extensionId": extension})
        world.reply(world.elsewhere.pop(), {"status": "healthy"})
    world.call("extension", "update", extensionId=extension, version="1.1", config={"a": 2})
    world.ask("extension", "deactivate", {"extensionId": extension, "reason": "old"})
    if world.elsewhere:
        world.reply(world.elsewhere.pop(), {})
    world.call("extension", "uninstall", extensionId=extension, reason="old")
    return world


def schedules() -> World:
    """Schedules of workflows: their times, those that were missed and made up for or not, a revision, and none any more."""
    world = World(checked=False)

    def told(order: int, *planned: dict[str, str]) -> None:
        message = ModuleMessage(
            id=f"set-{order}", type="schedule.notified", kind="notification", source_module="workflow", target_module="schedule",
            operation="set", time=from_micros(world.now_us), data={"workflow": "w", "order": order, "schedules": list(planned)},
        )  # fmt: skip
        world.queue.append((Send(topic=REQUESTS, key="w", record=message), True))
        world.settle()

    told(1, {"cron": "0 * * * *", "timezone": "UTC", "missed": "latest"})
    world.wait(3 * 3600)
    told(2, {"cron": "30 * * * *", "timezone": "Europe/Berlin", "missed": "skip"}, {"cron": "@daily", "timezone": "UTC", "missed": "all"})
    world.now_us += 5 * 3600 * 1_000_000  # nobody was there
    world.wait(3600)
    told(3)
    return world


STORIES: Mapping[str, Callable[[], World]] = {
    **{script.__name__.replace("_", "-"): partial(_life_cycles, script) for script in SCRIPTS},
    **{story.__name__: story for story in (rooms, decisions, talks, runs, partings, messages, hosts, schedules)},
}
