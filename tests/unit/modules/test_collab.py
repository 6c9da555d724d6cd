"""Votes of collaborations."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.modules.world import Refused, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def team(world: World) -> str:
    return str(world.call("collab", "create", name="team", participants=["ada", "bob"])["collabId"])


def refused(world: World, operation: str, **parameters: Any) -> tuple[str, str | None]:
    with pytest.raises(Refused) as error:
        world.call("collab", operation, parameters)
    return error.value.code, error.value.pointer


def test_only_participants_put_something_to_the_vote(world: World, team: str) -> None:
    assert refused(world, "propose", collabId=team, title="Go?", by="eve") == ("denied", "/by")
    assert world.call("collab", "propose", collabId=team, title="Go?", by="ada")["decision"]["status"] == "open"


def test_a_title_names_one_open_vote(world: World, team: str) -> None:
    first = world.call("collab", "propose", collabId=team, title="Go?")["decision"]["decisionId"]
    assert refused(world, "propose", collabId=team, title="Go?") == ("conflict", "/title")
    for who in ("ada", "bob"):
        decided = world.call("collab", "decide", collabId=team, title="Go?", by=who, choice="yes")["decision"]
    assert (decided["decisionId"], decided["outcome"]) == (first, "yes")
    assert world.call("collab", "propose", collabId=team, title="Go?")["decision"]["decisionId"] != first, "an ended one may be repeated"
