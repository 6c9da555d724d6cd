"""Whether roles permit something. Pure.

A permission is a dotted name (`plan.approve`); a pattern may end in `*` parts or contain them (`plan.*`, `*`), where `*` stands
for any text. A pattern that begins with `!` forbids. Only active roles count, and one that forbids beats all that permit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from services.modules.role.state import Role

FORBIDS = "!"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A pattern of a role that says something about the permission asked for."""

    role_id: str
    role: str
    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether it is permitted, in one sentence why, and the patterns that decided."""

    allowed: bool
    reason: str
    grants: tuple[Grant, ...] = ()


def evaluate(permission: str, roles: Iterable[Role], lapsed: Iterable[Role] = ()) -> Verdict:
    """The verdict on `permission` for somebody who has `roles`, and had `lapsed` ones until they expired."""
    permits: list[Grant] = []
    forbids: list[Grant] = []
    passive = [f"{role.name} (expired)" for role in lapsed]
    for role in roles:
        if role.status != "active":
            passive.append(f"{role.name} ({role.status})")
            continue
        for pattern in role.permissions:
            bare = pattern.removeprefix(FORBIDS)
            if fnmatchcase(permission, _literal_brackets(bare)):
                found = Grant(role_id=role.role_id, role=role.name, pattern=pattern)
                (forbids if pattern.startswith(FORBIDS) else permits).append(found)
    if forbids:
        return Verdict(allowed=False, reason=f"{forbids[0].role} forbids it by {forbids[0].pattern}.", grants=tuple(forbids))
    if permits:
        return Verdict(allowed=True, reason=f"{permits[0].role} permits it by {permits[0].pattern}.", grants=tuple(permits))
    if passive:
        return Verdict(allowed=False, reason=f"No active role permits it; not counted: {', '.join(passive)}.")
    return Verdict(allowed=False, reason="No role permits it.")


def _literal_brackets(pattern: str) -> str:
    """Only `*` is special in our patterns; `fnmatch` also knows `?` and `[`."""
    return pattern.replace("[", "[[]").replace("?", "[?]")
