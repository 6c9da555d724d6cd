"""How a user's module tells that it is there: the event `module.registered`, at its start and once a day. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.modules.user_module import Module
from streams.records import Record, SystemEvent
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
