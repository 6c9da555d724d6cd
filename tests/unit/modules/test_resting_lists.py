"""A list reads of what rests only what it lists."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from services.modules.context.state import Context
from services.modules.dialog.state import Dialog
from services.modules.machine import ModulesMachine
from streams.log import resting
from streams.log.lanes import Checkpointing
from streams.log.resting import Block, Resting, Whole
from streams.log.snapshot import Frozen, dump_block, dump_state, load_block
from streams.records import ModuleMessage, derived_id, from_micros
from streams.topics import REQUESTS
from tests.unit.log.test_resting import in_memory, lane, round_of, settled
from tests.unit.log.world import World, until

#: What else an operation wants to be told.
FURTHER: dict[str, dict[str, Any]] = {"context": {"type": "t"}, "dialog": {"participants": ["ada", "bob"]}}
CONTEXT = Context(context_id="c", name="n", type="t", description="", metadata={}, status="active", version=1, created_us=0, updated_us=0)
DIALOG = Dialog(dialog_id="d", topic="", context_id=None, participants={}, status="active", created_us=0)


def test_of_all_that_rests_only_what_is_of_a_class_is_made_a_state_of(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = ModulesMachine()
    states: list[tuple[str, Any]] = [("b/context-1", CONTEXT), ("a/dialog-1", DIALOG), ("a/context-2", CONTEXT)]
    raw = [(id_, dump_state(machine.states, Frozen(state=state, sequence=1, born=0, since=0))) for id_, state in states]
    whole = Whole(machine=machine, blocks=[Block(7, dump_block(raw[:2])), Block(3, dump_block(raw[1:]))], aggregates={"c/dialog-2": DIALOG})
    made: list[Any] = []
    load = machine.states.load

    def loaded(value: Any) -> Any:
        made.append(value)
        return load(value)

    monkeypatch.setattr(machine.states, "load", loaded)
    assert list(whole.states(kind=Context)) == [("b/context-1", CONTEXT), ("a/context-2", CONTEXT)]
    assert len(made) == 2
    assert [id_ for id_, _ in whole.states(kind=Dialog)] == ["c/dialog-2", "a/dialog-1"]
    assert len(list(whole.states())) == 4


async def test_what_rests_lies_in_blocks_of_one_class_and_a_list_unpacks_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(checkpointing=Checkpointing(records=10**9, interval_ms=10**9, live_bytes=0))
    runner = world.own("one", [ModulesMachine()])
    for number in range(6):
        for module, operation, name in (("context", "create-context", "name"), ("dialog", "facilitate-communication", "topic")):
            home = f"{module}-{number}"
            request = ModuleMessage(
                id=derived_id("ask", home), type=f"{module}.requested", source="test", subject=home, time=from_micros(0), kind="request",
                source_module="test", target_module=module, operation=operation, data={name: "x", **FURTHER[module]},
            )  # fmt: skip
            world.put(REQUESTS, home, request)
    await until(runner.serving.is_set)
    await settled(runner, world)
    await round_of(runner)
    assert in_memory(runner) == set()
    for _ in range(2):  # as they were written first, and anew
        await until(lambda: not runner._owned.inputs.waiting)
        whole = await Resting(lane(runner), runner._ports.codec).whole(0)
        assert Counter(block.kind for block in whole.blocks) == {"Context": 1, "Dialog": 1}
        unpacked: list[bytes] = []
        monkeypatch.setattr(resting, "load_block", lambda raw, unpacked=unpacked: unpacked.append(raw) or load_block(raw))
        assert len(list(whole.states(kind=Dialog))) == 6
        assert unpacked == [block.content for block in whole.blocks if block.kind == "Dialog"]
        assert len(list(whole.states())) == 12
        await Resting(lane(runner), runner._ports.codec).renew(before=10**6, window_us=10**12)
    await world.kill()
