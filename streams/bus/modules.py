"""Which modules there are and how they are, as the hub knows it; and as the topics tell it where no core answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streams.bus.messages import HUB

if TYPE_CHECKING:
    from streams.bus.bus import Bus

#: How long the hub may take, seconds.
ANSWER_S = 5.0


async def listed(bus: Bus, kind: str | None = None, *, timeout: float = ANSWER_S) -> list[dict[str, Any]]:
    """See `Bus.modules`."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        given: dict[str, Any] = {"brief": True, "after": after, **({} if kind is None else {"kind": kind})}
        page: Any = await bus.call_module(HUB, "list", given, home=HUB, timeout=timeout)
        found += [row_of(each) for each in page["modules"]]
        if page["next"] is None:
            return found
        after = page["next"]


def row_of(module: Mapping[str, Any]) -> dict[str, Any]:
    """What a list tells of a module: the names of its operations, and its processes with their leases."""
    return {
        "module": module["module"],
        "kind": module["kind"],
        "status": module["status"],
        "description": module["description"],
        "operations": list(module["operations"]),
        "instances": [
            {"instance": name, "lease_until": each["leaseUntil"], "detail": each["detail"]} for name, each in module["instances"].items()
        ],
        "registered_at": module["registeredAt"],
    }
