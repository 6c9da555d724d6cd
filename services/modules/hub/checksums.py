"""What the owner of a partition knows, in one number per module: to compare it with what the log says. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from services.modules.hub.operations import Checksum, ChecksumList, ChecksumResult
from services.modules.lookup import listing
from services.modules.operation import Outcome, Request
from streams.log.types import View


def checksum(view: View[Any], parameters: Checksum, request: Request) -> Outcome:
    """Checksums of what the owners of all partitions know, by module."""
    found = checksums(view.partition, view.states(), parameters.module)
    return listing(view, parameters, ChecksumList, found, lambda each: each.place, lambda each: each)


def checksums(partition: int, states: Iterable[tuple[str, Any]], module: str | None = None) -> list[ChecksumResult]:
    """The checksums of these aggregates.

    What waits for others, and what is listed no more, does not count: owners may have let go of it.
    """
    from services.modules.states import STATES  # the states know the hub's

    texts: dict[str, list[bytes]] = {}
    owners = _owners()
    for aggregate_id, state in states:
        name = owners.get(type(state))
        if name is not None and module in (None, name) and not getattr(state, "settled", False):
            texts.setdefault(name, []).append(orjson.dumps([aggregate_id, STATES.dump(state)], option=orjson.OPT_SORT_KEYS))
    return [
        ChecksumResult(
            place=f"{partition:05d}/{name}",
            partition=partition,
            module=name,
            aggregates=len(parts),
            checksum=hashlib.sha256(b"\n".join(sorted(parts))).hexdigest(),
        )
        for name, parts in sorted(texts.items())
    ]


def _owners() -> Mapping[type[Any], str]:
    from services.modules.catalogue import MODULES  # the catalogue knows the hub

    return {kind.state: name for name, module in MODULES.items() for kind in module.aggregates}
