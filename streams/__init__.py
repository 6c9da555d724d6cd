"""What flows: records, topics, codec, log kernel, matching, correlation, and the bus that users import.

`from streams import SystemEvent, connect` is all that most programs need. The names below are imported when first used, so
that pure parts do not load clients.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streams.bus import Bus, Delivered, Published, Subscription, connect, parse_event
    from streams.errors import BackboneError, Denied, InvalidInput, NotFound, Refused, TooLarge, Unavailable
    from streams.records import CompositeEvent, ModuleMessage, Record, SystemEvent, WorkflowCommand, WorkflowTransition
    from streams.settings import Settings

_PLACES = {
    "streams.bus": ("Bus", "Delivered", "Published", "Subscription", "connect", "parse_event"),
    "streams.errors": ("BackboneError", "Denied", "InvalidInput", "NotFound", "Refused", "TooLarge", "Unavailable"),
    "streams.records": ("CompositeEvent", "ModuleMessage", "Record", "SystemEvent", "WorkflowCommand", "WorkflowTransition"),
    "streams.settings": ("Settings",),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "BackboneError",
    "Bus",
    "CompositeEvent",
    "Delivered",
    "Denied",
    "InvalidInput",
    "ModuleMessage",
    "NotFound",
    "Published",
    "Record",
    "Refused",
    "Settings",
    "Subscription",
    "SystemEvent",
    "TooLarge",
    "Unavailable",
    "WorkflowCommand",
    "WorkflowTransition",
    "connect",
    "parse_event",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)
