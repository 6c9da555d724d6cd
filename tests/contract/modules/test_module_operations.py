"""The built-in modules against the contract: names of modules and operations, schemas that say what they take and give."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest

from services.modules.catalogue import MODULES, OPERATIONS, describe
from services.modules.operation import types_of
from streams.operations import CONTRACT

HERE = set(CONTRACT)
#: What must be there, whatever else is.
REQUIRED = {
    "context": {"create-context", "get-context", "update-context", "list-contexts", "transition-lifecycle", "delete-context"},
    "plan": {"create-plan", "get-plan", "validate-plan", "approve-plan", "activate-plan", "update-task", "complete-plan", "cancel-plan"},
    "role": {"create-role", "assign-roles", "revoke-role", "check-permission", "list-roles"},
    "confirm": {"create", "approve", "reject", "delegate", "escalate", "get", "list"},
    "trace": {"start-monitoring", "record", "stop-monitoring", "get-trace", "analyze-trace"},
    "extension": {"install", "activate", "deactivate", "uninstall", "list", "health"},
    "dialog": {"facilitate-communication", "send-message", "history", "add-participants", "end"},
    "collab": {"create", "join", "leave", "assign-task", "decide", "end", "get"},
    "network": {"create-network", "add-node", "remove-node", "connect", "route-message", "topology", "health"},
    "core": {"create-workflow", "execute-workflow", "get-workflow-status", "pause", "resume", "cancel"},
}


def test_modules_offer_exactly_what_the_contract_names() -> None:
    assert {name: set(operations) for name, operations in OPERATIONS.items()} == {name: set(CONTRACT[name]) for name in HERE}
    assert {name: wanted - set(OPERATIONS[name]) for name, wanted in REQUIRED.items()} == {name: set() for name in REQUIRED}


@pytest.mark.parametrize("module", sorted(HERE))
def test_every_operation_is_described_by_valid_json_schemas(module: str) -> None:
    described = describe(module)
    assert described is not None
    for operation in described.values():
        assert operation["description"].endswith(".")
        for part in ("parameters", "result"):
            assert jsonschema_rs.meta.is_valid(operation[part])
            json.dumps(operation[part])
        assert operation["parameters"]["additionalProperties"] is False


@pytest.mark.parametrize("module", sorted(HERE))
def test_fields_are_in_camel_case(module: str) -> None:
    described = describe(module)
    assert described is not None
    names = {name for operation in described.values() for part in ("parameters", "result") for name in operation[part]["properties"]}
    assert [name for name in names if "_" in name or name[:1].isupper()] == []


def test_an_unknown_module_is_not_described() -> None:
    assert describe("ghost") is None


def test_every_event_type_belongs_to_one_event_of_one_module() -> None:
    types = [event_type for module in MODULES.values() for event_class in module.events for event_type in types_of(event_class)]
    assert len(types) == len(set(types))
    assert all(event_type.partition(".")[0] in HERE for event_type in types)
