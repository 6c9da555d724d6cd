"""What a user's module tells as events: `module.registered` (at its start and once a day), and `request.expired`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.modules.user_module import Module
from streams.records import ModuleMessage, Record, SystemEvent, derived_id
from streams.topics import module_requests

REGISTERED = "module.registered"
#: System events are kept for 30 days: who tells every day is always known.
INTERVAL_S = 24 * 3600.0


def registration_event(module: Module) -> SystemEvent:
    """What others may know of the module: its operations with the JSON Schemas of their parameters and results."""
    return SystemEvent(
        type=REGISTERED,
        source=f"mplp/modules/{module.name}",
        subject=module.name,
        data={
            "module": module.name,
            "description": module.description,
            "requests": module_requests(module.name),
            "operations": {name: operation.describe() for name, operation in sorted(module.operations.items())},
        },
    )


def registered_modules(events: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """The latest registration of each module, by name, from the history of `module.registered` events (oldest first).

    Events are written by whoever may publish: what does not have the shape of a registration is left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        data = event.data
        if event.type != REGISTERED or not isinstance(data, dict):
            continue
        name, operations = data.get("module"), data.get("operations")
        if isinstance(name, str) and isinstance(operations, dict) and all(isinstance(each, dict) for each in operations.values()):
            found[name] = {**data, "registered_at": event.time}
    return found


def expired_event(request: ModuleMessage, module: str) -> SystemEvent:
    """A request whose deadline has passed before it was answered: it is not carried out, or not to its end."""
    return SystemEvent(
        id=derived_id("expired", request.id),
        type="request.expired",
        source=f"mplp/modules/{module}",
        subject=request.execution_id or request.id,
        tenant=request.tenant,
        correlation_id=request.correlation_id,
        causation_id=request.id,
        severity="warning",
        data={"module": module, "operation": request.operation, "step_id": request.step_id, "attempt": request.attempt},
    )
