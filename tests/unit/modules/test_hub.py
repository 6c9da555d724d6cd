from __future__ import annotations

from typing import Any

import orjson
import pytest

from services.modules.catalogue import describe
from streams.limits import PAYLOAD_BYTES_MAX
from streams.topics import home_of
from tests.unit.modules.world import Refused, World

CONTEXT = {"id": "room", "module": "context", "operation": "create-context", "parameters": {"name": "x"}}
PLAN = {
    "id": "plan", "module": "plan", "operation": "create-plan", "dependsOn": ["room"],
    "parameters": {"contextId": "${room.result.contextId}"},
}  # fmt: skip
BAD = {"id": "bad", "module": "context", "operation": "get-context", "parameters": {"contextId": "elsewhere/none"}}
UNDO = {"operation": "delete-context", "parameters": {"contextId": "${room.result.contextId}"}}


@pytest.fixture
def world() -> World:
    world = World(partitions=3)
    world.call("hub", "register", module="shop", operations={"sell": {}, "refund": {}}, lease="30s", instance="shop-1")
    return world


def statuses(answer: dict[str, Any]) -> dict[str, str]:
    return {call["id"]: call["status"] for call in answer["calls"]}


def test_modules_are_coordinated_in_the_order_of_their_dependencies(world: World) -> None:
    answer = world.call("hub", "coordinate", calls=[PLAN, CONTEXT])
    assert (answer["status"], answer["succeeded"], answer["failed"]) == ("completed", 2, 0)
    results = {call["id"]: call["result"] for call in answer["calls"]}
    assert results["plan"]["contextId"] == results["room"]["contextId"]


def test_partial_success_is_reported_with_the_error(world: World) -> None:
    answer = world.call("hub", "coordinate", calls=[CONTEXT, BAD, {**CONTEXT, "id": "third"}], mode="parallel")
    assert (answer["status"], answer["succeeded"], answer["failed"]) == ("partial", 2, 1)
    failed = next(call for call in answer["calls"] if call["id"] == "bad")
    assert (failed["status"], failed["error"]["code"]) == ("failed", "not-found")


def test_what_depends_on_a_failure_is_not_begun(world: World) -> None:
    answer = world.call("hub", "coordinate", calls=[BAD, {**CONTEXT, "dependsOn": ["bad"]}])
    assert (answer["status"], statuses(answer)) == ("failed", {"bad": "failed", "room": "skipped"})


def test_all_or_nothing_undoes_what_succeeded(world: World) -> None:
    answer = world.call("hub", "coordinate", calls=[{**CONTEXT, "compensate": UNDO}, {**BAD, "dependsOn": ["room"]}], allOrNothing=True)
    assert (answer["status"], statuses(answer)) == ("compensated", {"room": "compensated", "bad": "failed"})
    context = answer["calls"][0]["result"]["contextId"]
    with pytest.raises(Refused, match="not-found"):
        world.call("context", "get-context", contextId=context)


@pytest.mark.parametrize(
    ("call", "code", "pointer"),
    [
        ({"module": "ghost", "operation": "x"}, "module.unknown", "/calls/0/module"),
        ({"module": "shop", "operation": "steal"}, "operation.unknown", "/calls/0/operation"),
        ({"module": "hub", "operation": "list"}, "invalid", "/calls/0/module"),
    ],
)
def test_what_is_not_there_is_an_error_before_anything_begins(world: World, call: dict[str, str], code: str, pointer: str) -> None:
    with pytest.raises(Refused) as refused:
        world.call("hub", "coordinate", calls=[call, CONTEXT])
    assert (refused.value.code, refused.value.pointer) == (code, pointer)
    assert world.events("context.created") == []


def test_a_circle_is_refused(world: World) -> None:
    with pytest.raises(Refused, match="circle"):
        world.call("hub", "coordinate", calls=[{**CONTEXT, "dependsOn": ["bad"]}, {**BAD, "dependsOn": ["room"]}])


@pytest.mark.parametrize(
    ("calls", "pointer"),
    [
        ([{**CONTEXT, "parameters": {"name": ["${ghost.result.x}"]}}], "/calls/0/parameters/name/0"),
        ([{**CONTEXT, "parameters": {"name": "${room.result.x}"}}], "/calls/0/parameters/name"),
        ([CONTEXT, {**BAD, "parameters": {"contextId": "${room.result.contextId}"}}], "/calls/1/parameters/contextId"),
        ([{**CONTEXT, "compensate": {"operation": "delete-context", "parameters": {"contextId": "${rom.result}"}}}],
         "/calls/0/compensate/parameters/contextId"),
    ],
    ids=["no such call", "itself", "not sure to have ended", "compensation"],
)  # fmt: skip
def test_references_that_cannot_be_followed_are_refused_before_anything_begins(world: World, calls: Any, pointer: str) -> None:
    with pytest.raises(Refused) as refused:
        world.call("hub", "coordinate", calls=calls)
    assert (refused.value.code, refused.value.pointer) == ("invalid", pointer)
    assert world.events("context.created") == []


def test_results_of_all_that_must_have_ended_can_be_referred_to(world: World) -> None:
    last = {**BAD, "id": "last", "dependsOn": ["middle"], "parameters": {"contextId": "${room.result.contextId}"}}
    found = world.call("hub", "coordinate", calls=[CONTEXT, {**CONTEXT, "id": "middle", "dependsOn": ["room"]}, last])
    assert (found["status"], found["succeeded"]) == ("completed", 3)


def test_a_message_is_sent_as_it_is(world: World) -> None:
    sent = world.call("hub", "send", module="context", operation="create-context", parameters={"name": "${a} and ${b.result}"})
    assert sent["result"]["name"] == "${a} and ${b.result}"


def test_a_call_is_tried_again_as_often_as_it_may(world: World) -> None:
    sell = {"id": "sell", "module": "shop", "operation": "sell", "retries": 2}
    request = world.ask("hub", "coordinate", {"calls": [sell]})
    for _ in range(3):
        world.reply(world.elsewhere.pop(), error="busy", retryable=True)
        world.wait(1)
    answer = world.answer_of(request)
    assert (answer["status"], answer["calls"][0]["attempts"], answer["calls"][0]["error"]["code"]) == ("failed", 3, "busy")
    assert world.elsewhere == []


def test_a_message_is_answered_or_times_out_and_a_late_answer_is_recorded(world: World) -> None:
    request = world.ask("hub", "send", {"module": "shop", "operation": "sell", "parameters": {"sku": 1}, "timeout": "5s"})
    sent = world.elsewhere.pop()
    assert (sent.data, sent.operation) == ({"sku": 1}, "sell")
    world.reply(sent, {"sold": True})
    assert world.answer_of(request)["result"] == {"sold": True}
    missed = world.ask("hub", "send", {"module": "shop", "operation": "sell", "timeout": "5s"})
    world.wait(5)
    with pytest.raises(Refused, match=r"module\.silent"):
        world.answer_of(missed)
    world.reply(world.elsewhere.pop(), {"sold": True})
    assert [event.type for event in world.events("hub.answered-late")] == ["hub.answered-late"]


def test_of_an_endless_complaint_only_the_beginning_is_kept(world: World) -> None:
    """An event with all of it would be no record, and its partition would decide nothing else any more."""
    request = world.ask("hub", "send", {"module": "shop", "operation": "sell"})
    world.reply(world.elsewhere.pop(), error="x" * 2_000_000)
    with pytest.raises(Refused):
        world.answer_of(request)
    assert max(len(orjson.dumps(event.data)) for event in world.events("hub.call-failed")) < PAYLOAD_BYTES_MAX


def test_a_new_owner_sends_again_and_the_answer_counts_once(world: World) -> None:
    from streams.topics import partition_of

    request = world.ask("hub", "send", {"module": "shop", "operation": "sell"})
    first = world.elsewhere.pop()
    world.take_over(partition_of("hub", 3))
    again = world.elsewhere.pop()
    assert (again.id, again.data, again.deadline) == (first.id, first.data, first.deadline)
    world.reply(first, {"n": 1})
    world.reply(again, {"n": 1})
    assert world.answer_of(request)["result"] == {"n": 1}
    assert len(world.events("hub.call-succeeded")) == 1


# --- registry -------------------------------------------------------------------------------------------------------------


def test_a_module_lives_as_long_as_its_lease(world: World) -> None:
    found = world.call("hub", "get", module="shop")
    assert (found["status"], list(found["instances"]), list(found["operations"])) == ("serving", ["shop-1"], ["sell", "refund"])
    world.wait(20)
    assert world.call("hub", "register", module="shop", instance="shop-1", lease="30s")["wish"] == "serving"
    world.wait(29)
    assert world.call("hub", "get", module="shop")["status"] == "serving"
    world.wait(1)
    assert (world.call("hub", "get", module="shop")["status"], len(world.events("hub.instance-gone"))) == ("silent", 1)


def test_processes_learn_what_they_are_to_do(world: World) -> None:
    world.call("hub", "drain", module="shop", reason="upgrade")
    assert world.call("hub", "register", module="shop", instance="shop-1", lease="30s")["wish"] == "draining"
    assert world.call("hub", "get", module="shop")["status"] == "draining"
    world.call("hub", "start", module="shop")
    assert world.call("hub", "register", module="shop", instance="shop-1", lease="30s")["wish"] == "serving"
    with pytest.raises(Refused, match="conflict"):
        world.call("hub", "start", module="shop")
    with pytest.raises(Refused, match="conflict"):
        world.call("hub", "drain", module="plan")


def test_what_is_unregistered_is_unknown(world: World) -> None:
    world.call("hub", "unregister", module="shop")
    with pytest.raises(Refused, match=r"module\.unknown"):
        world.call("hub", "get", module="shop")


def test_a_built_in_module_is_neither_registered_nor_unregistered(world: World) -> None:
    for operation in ("register", "unregister"):
        with pytest.raises(Refused, match="conflict: plan is a built-in module"):
            world.call("hub", operation, module="plan")


def test_what_a_process_says_of_itself_counts_from_its_first_word_on(world: World) -> None:
    world.call("hub", "register", module="mill", operations={"grind": {}}, lease="30s", detail={"running": 2})
    assert world.call("hub", "get", module="mill")["instances"]["mill"]["detail"] == {"running": 2}


def test_a_module_is_described_anew_although_it_offers_the_same(world: World) -> None:
    world.call("hub", "register", module="shop", operations={"sell": {}, "refund": {}}, description="Sells.", instance="shop-1")
    world.call("hub", "register", module="shop", instance="shop-1")
    assert world.call("hub", "get", module="shop")["description"] == "Sells."


def test_a_refused_message_says_where_in_its_parameters_the_fault_lies(world: World) -> None:
    request = world.ask("hub", "send", {"module": "context", "operation": "create-context", "parameters": {"name": 5}})
    with pytest.raises(Refused) as refused:
        world.answer_of(request)
    assert (refused.value.code, refused.value.pointer) == ("invalid", "/parameters/name")
    assert [each["pointer"] for each in world.responses[request].data["faults"]] == ["/parameters/name"]


def test_the_list_has_built_in_and_registered_modules(world: World) -> None:
    listed = world.call("hub", "list")["modules"]
    assert [each["module"] for each in listed if each["kind"] == "registered"] == ["shop"]
    assert {"context", "confirm", "hub"} <= {each["module"] for each in listed}
    assert world.call("hub", "list", operation="sell")["total"] == 1


# --- broadcasts -----------------------------------------------------------------------------------------------------------


def test_schemas_are_made_for_who_asks_for_them_and_once(world: World) -> None:
    """Those of all modules take half a second, in which the owner would decide nothing else."""
    describe.cache_clear()
    assert world.call("hub", "list", brief=True, limit=50)["total"] == 12
    assert "parameters" not in world.call("hub", "get", module="shop")["operations"]["sell"]
    assert describe.cache_info().misses == 0
    for _ in range(2):
        assert "parameters" in world.call("hub", "get", module="context")["operations"]["create-context"]
    assert describe.cache_info().misses == 1


def test_ninety_receive_at_once_ten_when_they_are_back_and_the_report_says_which() -> None:
    world = World(checked=False)
    names = [f"listener-{number:02d}" for number in range(100)]
    for name in names:
        world.call("hub", "subscribe", subscriber=name, types=["order.*"])
    request = world.ask("hub", "broadcast", {"type": "order.paid", "data": {"total": 5}, "timeout": "60s"})
    away = names[:10]
    assert sorted(each.target_module or "" for each in world.broadcasts) == names
    messages, world.broadcasts = {each.target_module: each for each in world.broadcasts}, []
    for name in names[10:]:
        world.receive(messages[name], name)
        world.receive(messages[name], name)  # an acknowledgement that is repeated
    assert request not in world.responses
    for name in away[:9]:
        assert world.call("hub", "subscribe", subscriber=name, types=["order.*"])["sentAgain"] == 1
    assert {each.id for each in world.broadcasts} == {messages[name].id for name in away[:9]}
    for message in list(world.broadcasts):
        world.receive(message, message.target_module or "")
    world.wait(60)
    report = world.answer_of(request)
    assert (len(report["received"]), report["missing"], report["status"]) == (99, [away[9]], "ended")
    assert len(world.events("hub.message-received")) == 99


def test_only_who_wants_the_type_gets_it_and_nobody_is_waited_for_in_vain(world: World) -> None:
    world.call("hub", "subscribe", subscriber="a", types=["order.*"])
    assert world.call("hub", "broadcast", type="plan.done")["subscribers"] == 0
    request = world.ask("hub", "broadcast", {"type": "order.paid"})
    world.receive(world.broadcasts.pop(), "a")
    assert world.answer_of(request)["received"] == ["a"]
    world.call("hub", "unsubscribe", subscriber="a")
    assert world.call("hub", "broadcast", type="order.paid")["subscribers"] == 0


def test_modules_get_broadcasts_in_their_inbox_and_late_receipts_are_told(world: World) -> None:
    world.call("hub", "subscribe", subscriber="shop", types=["**"], module=True)
    begun = world.call("hub", "broadcast", type="order.paid", wait=False, timeout="1s")
    (message,) = world.elsewhere
    assert (message.kind, message.type) == ("broadcast", "order.paid")
    world.wait(1)
    world.receive(message, "shop")
    report = world.call("hub", "report", id=begun["broadcastId"])["broadcast"]
    assert (report["received"], report["missing"], report["late"]) == ([], ["shop"], ["shop"])


def test_checksums_tell_owners_that_know_the_same_from_those_that_do_not() -> None:
    worlds = [World(partitions=3), World(partitions=3)]
    for world in worlds:
        for number in range(6):
            world.call("context", "create-context", name=f"n{number}", home=f"h{number}")
    one, other = ([each["checksum"] for each in world.call("hub", "checksum", module="context")["checksums"]] for world in worlds)
    assert one == other
    assert len(one) >= 2
    worlds[0].call("context", "create-context", name="more", home="h0")
    assert [each["checksum"] for each in worlds[0].call("hub", "checksum", module="context")["checksums"]] != other


def test_the_state_of_a_module_is_read_page_by_page_or_by_its_id() -> None:
    world = World(partitions=3)
    made = sorted(world.call("context", "create-context", name=f"n{number}", home=f"h{number}")["contextId"] for number in range(5))
    world.call("dialog", "facilitate-communication", participants=["ada", "bob"])
    first = world.call("hub", "state", module="context", limit=3)
    second = world.call("hub", "state", module="context", limit=3, after=first["next"])
    assert [each["id"] for page in (first, second) for each in page["aggregates"]] == made
    assert (first["total"], first["complete"], second["next"]) == (5, True, None)
    one = world.call("hub", "state", id=made[2])["aggregates"]
    assert [(each["module"], each["kind"], each["state"]["context_id"]) for each in one] == [("context", "Context", made[2])]
    assert {each["module"] for each in world.call("hub", "state")["aggregates"]} == {"context", "dialog"}
    with pytest.raises(Refused) as refused:
        world.call("hub", "state", id="h1/context-none")
    assert (refused.value.code, refused.value.pointer) == ("not-found", "/id")


@pytest.mark.parametrize("operation", ["state", "checksum"])
def test_what_owners_know_of_an_unknown_module_is_an_error(operation: str) -> None:
    with pytest.raises(Refused) as refused:
        World(partitions=3).call("hub", operation, module="ghost")
    assert (refused.value.code, refused.value.pointer) == ("module.unknown", "/module")


def test_a_rebuild_reaches_the_owner_of_every_partition_once_and_is_on_record() -> None:
    world = World(partitions=3)
    asked = world.ask("hub", "rebuild", {"reason": "to be sure"})
    assert [each["partition"] for each in world.answer_of(asked)["partitions"]] == [0, 1, 2]
    told = world.events("hub.rebuild-asked")
    assert sorted(send.key for send in world.refolds) == sorted(home_of(event.aggregate_id or "") for event in told)
    assert sorted(event.data["partition"] for event in told) == [0, 1, 2]
    assert {event.data["reason"] for event in told} == {"to be sure"}
