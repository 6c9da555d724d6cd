from __future__ import annotations

from typing import Any

import pytest

from tests.unit.modules.world import Refused, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def network(world: World) -> str:
    network = str(world.call("network", "create-network", name="net")["networkId"])
    for node in "abcd":
        world.call("network", "add-node", networkId=network, nodeId=node)
    for start, end, weight in (("a", "b", 1), ("b", "c", 1), ("a", "c", 5), ("c", "d", 1)):
        world.call("network", "connect", {"networkId": network, "from": start, "to": end, "weight": weight})
    return network


def route(world: World, network: str, start: str, end: str) -> Any:
    return world.call("network", "route-message", {"networkId": network, "from": start, "to": end, "message": {"n": 1}})


def test_a_message_takes_the_cheapest_way_over_what_is_online(world: World, network: str) -> None:
    assert route(world, network, "a", "d")["path"] == ["a", "b", "c", "d"]
    world.call("network", "update-node", networkId=network, nodeId="b", status="offline")
    found = route(world, network, "a", "d")
    assert (found["path"], found["cost"], found["hops"]) == (["a", "c", "d"], 6.0, 2)
    assert world.events("network.message-routed")[-1].data["path"] == ["a", "c", "d"]


def test_without_a_way_it_is_unreachable(world: World, network: str) -> None:
    world.call("network", "update-node", networkId=network, nodeId="c", status="maintenance")
    with pytest.raises(Refused) as refused:
        route(world, network, "a", "d")
    assert (refused.value.code, refused.value.retryable) == ("unreachable", True)
    with pytest.raises(Refused, match="not-found"):
        route(world, network, "a", "ghost")


def test_topology_names_what_holds_it_together(world: World, network: str) -> None:
    found = world.call("network", "topology", networkId=network)
    assert (found["connected"], found["diameter"], found["singlePointsOfFailure"]) == (True, 2, ["c"])
    world.call("network", "remove-node", networkId=network, nodeId="c")
    parted = world.call("network", "topology", networkId=network)
    assert (parted["components"], parted["connected"], parted["diameter"]) == ([["a", "b"], ["d"]], False, None)


def test_a_node_that_says_nothing_is_offline_until_it_does(world: World, network: str) -> None:
    world.call("network", "add-node", networkId=network, nodeId="beat", heartbeatInterval="10s")
    world.call("network", "heartbeat", networkId=network, nodeId="beat")
    world.wait(29)
    assert world.call("network", "health", networkId=network)["silent"] == []
    world.wait(1)
    health = world.call("network", "health", networkId=network)
    assert (health["silent"], health["status"]) == (["beat"], "warning")
    world.call("network", "heartbeat", networkId=network, nodeId="beat")
    assert world.call("network", "health", networkId=network)["silent"] == []


@pytest.mark.parametrize(("away", "status"), [([], "healthy"), (["d"], "warning"), (["c", "d"], "degraded")])
def test_health_goes_by_the_share_of_nodes(world: World, network: str, away: list[str], status: str) -> None:
    for node in away:
        world.call("network", "update-node", networkId=network, nodeId=node, status="offline")
    assert world.call("network", "health", networkId=network)["status"] == status


def test_a_node_in_error_is_critical(world: World, network: str) -> None:
    world.call("network", "update-node", networkId=network, nodeId="a", status="error", reason="disk")
    assert world.call("network", "health", networkId=network)["status"] == "critical"
