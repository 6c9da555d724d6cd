"""A list reads of what rests only what it lists."""

from __future__ import annotations

from typing import Any

import pytest

from services.modules.context.state import Context
from services.modules.dialog.state import Dialog
from services.modules.machine import ModulesMachine
from streams.log.resting import Whole
from streams.log.snapshot import Frozen, dump_block, dump_state

CONTEXT = Context(context_id="c", name="n", type="t", description="", metadata={}, status="active", version=1, created_us=0, updated_us=0)
DIALOG = Dialog(dialog_id="d", topic="", context_id=None, participants={}, status="active", created_us=0)


def test_of_all_that_rests_only_what_is_of_a_class_is_made_a_state_of(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = ModulesMachine()
    states: list[tuple[str, Any]] = [("b/context-1", CONTEXT), ("a/dialog-1", DIALOG), ("a/context-2", CONTEXT)]
    raw = [(id_, dump_state(machine.states, Frozen(state=state, sequence=1, born=0, since=0))) for id_, state in states]
    whole = Whole(machine=machine, blocks=[(7, dump_block(raw[:2])), (3, dump_block(raw[1:]))], aggregates={"c/dialog-2": DIALOG})
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
