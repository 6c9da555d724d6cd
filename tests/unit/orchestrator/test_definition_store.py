"""What a process knows of definitions that others have checked."""

from __future__ import annotations

from typing import Any

from services.orchestrator.definitions import parse_valid
from services.orchestrator.store import DefinitionStore

CHILD: dict[str, Any] = {
    "id": "child", "name": "child", "steps": [{"id": "b", "type": "module-operation", "module": "elsewhere", "operation": "do"}],
}  # fmt: skip
PARENT: dict[str, Any] = {
    "id": "parent",
    "name": "parent",
    "steps": [
        {
            "id": "a", "type": "conditional", "condition": {"type": "custom", "handler": "judge.decide"},
            "then": {"id": "c", "type": "workflow", "workflow": CHILD},
        }
    ],
}  # fmt: skip


def test_modules_of_a_definition_that_another_process_has_checked_are_known() -> None:
    store = DefinitionStore({"plan": ("get-plan",)})
    store.restore(PARENT)
    assert set(store.operations) == {"plan", "judge", "elsewhere"}
    assert "anything" in store.operations["elsewhere"]
    assert store.get(parse_valid(CHILD).hash) is not None


def test_a_built_in_module_keeps_its_operations() -> None:
    store = DefinitionStore({"elsewhere": ("do",)})
    store.restore(CHILD)
    assert "other" not in store.operations["elsewhere"]
