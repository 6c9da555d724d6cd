"""The log walked from outside: what it says at each place, and what it does not pass over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.modules.hub.checksums import checksums
from services.modules.log_checksums import LogChecksums
from streams.errors import Defect
from streams.log.types import Entry
from tests.unit.modules.world import World


def log_of(world: World) -> list[Entry]:
    return list(world.modules[0].log)


def folded(log: list[Entry], watched_from: int, time_us: int) -> LogChecksums:
    found = LogChecksums(partition=0, time_us=time_us, watched_from=watched_from)
    for entry in log:
        found.fold(entry.event, "log", entry.position.offset)
    return found


def test_every_sum_since_the_owner_was_asked_is_kept_and_none_before() -> None:
    world = World()
    for number in range(3):
        world.call("context", "create-context", name=f"room {number}")
    asked = log_of(world)[-1].position.offset + 1
    context = world.call("context", "create-context", name="late")["contextId"]
    (owner,) = checksums(0, world.modules[0].view.states(), world.now_us, "context")
    world.call("context", "delete-context", contextId=context, reason="no room")
    found = folded(log_of(world), asked, world.now_us).seen()["context"]
    assert sorted(count for count, _ in found) == [3, 4], "before the fourth, with it, and after it is gone"
    assert (owner.aggregates, int(owner.checksum, 16)) in found


def test_an_owner_that_knows_something_else_is_told_apart() -> None:
    world = World()
    context = world.call("context", "create-context", name="room")["contextId"]
    states = [(id_, replace(state, name="hall") if id_ == context else state) for id_, state in world.modules[0].view.states()]
    (owner,) = checksums(0, states, world.now_us, "context")
    assert (owner.aggregates, int(owner.checksum, 16)) not in folded(log_of(world), 0, world.now_us).seen()["context"]


def test_a_repeat_counts_once_and_a_gap_is_a_defect_of_the_log() -> None:
    world = World()
    context = world.call("context", "create-context", name="room")["contextId"]
    world.call("context", "update-context", contextId=context, name="hall")
    log = log_of(world)
    again = folded([*log, log[-1]], len(log), world.now_us)
    assert again.seen() == folded(log, len(log), world.now_us).seen()
    missing = [entry for entry in log if entry.event.aggregate_id != context or entry.event.sequence != 2]
    with pytest.raises(Defect, match=r"log\.gap"):
        folded(missing, 0, world.now_us)
