"""API keys: who may do what. A key is stored as its SHA-256, compared in constant time, and never logged.

Roles are ordered, each may do what those before it may: *reader* sees, *producer* also publishes events and calls modules,
*operator* also starts and commands executions and changes rules, *admin* also changes schemas. Without any key everyone who
reaches the gateway is admin; then it binds to loopback only (`check_bind`).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum

from fastapi.dependencies.models import Dependant
from starlette.requests import HTTPConnection, Request

from services.gateway.problems import Unauthenticated
from streams.errors import Denied, InvalidInput, Refused

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")

#: Who acts when no keys are configured.
LOCAL = "local"


class Role(IntEnum):
    """What a key may do; a higher role includes the lower ones."""

    READER = 1
    PRODUCER = 2
    OPERATOR = 3
    ADMIN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A configured key."""

    name: str
    role: Role
    sha256: str  #: of the key's UTF-8 bytes, lower-case hexadecimal


@dataclass(frozen=True, slots=True)
class Keys:
    """The configured keys; none: everyone is admin."""

    keys: tuple[Key, ...] = ()

    def find(self, presented: str) -> Key | None:
        """The key that was presented. Compares with every configured one, each in constant time."""
        digest = hashlib.sha256(presented.encode()).hexdigest()
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


def parse_keys(text: str) -> Keys:
    """Keys from the setting `api_keys`: `name:role:sha256`, comma separated. Raises `InvalidInput` (`api-keys.invalid`)."""
    keys = []
    for number, entry in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
        name, _, rest = entry.partition(":")
        role, _, digest = rest.partition(":")
        if not _NAME.fullmatch(name) or role.upper() not in Role.__members__ or not _SHA256.fullmatch(digest.lower()):
            raise InvalidInput(
                "api-keys.invalid",
                f"Key {number} of MPLP_API_KEYS is not name:role:sha256 with a role of {', '.join(Role.__members__).lower()}.",
                advice="Make the hash with: printf %s KEY | sha256sum",
            )
        keys.append(Key(name=name, role=Role[role.upper()], sha256=digest.lower()))
    if len({key.name for key in keys}) < len(keys):
        raise InvalidInput("api-keys.invalid", "Two keys of MPLP_API_KEYS have the same name.")
    return Keys(tuple(keys))


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, keys: Keys) -> None:
    """Raises `Refused` (`bind.unprotected`) if the gateway would be open to other machines without keys."""
    if not is_loopback(host) and not keys.keys:
        raise Refused(
            "bind.unprotected",
            f"The gateway would listen on {host} without API keys.",
            advice="Set MPLP_API_KEYS (name:role:sha256, comma separated), or MPLP_HTTP_HOST=127.0.0.1.",
        )


def presented(connection: HTTPConnection) -> str:
    """The key in `Authorization: Bearer` or `X-API-Key`; empty if there is none."""
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else connection.headers.get("x-api-key", "")


def authorise(request: Request, role: Role) -> str:
    """The name of the caller, who has at least `role`.

    Raises `Unauthenticated` (`key.missing`, `key.unknown`) and `Denied` (`role.insufficient`).
    """
    keys: Keys = request.app.state.keys
    if not keys.keys:
        return LOCAL
    given = presented(request)
    if not given:
        raise Unauthenticated("key.missing", "This needs an API key.", advice="Send Authorization: Bearer KEY, or X-API-Key: KEY.")
    key = keys.find(given)
    if key is None:
        raise Unauthenticated("key.unknown", "This API key is not known here.")
    if key.role < role:
        raise Denied("role.insufficient", f"The key {key.name} is {key.role.name.lower()}; this needs {role.name.lower()}.")
    return key.name


def requires(role: Role) -> Callable[[Request], Awaitable[str]]:
    """A dependency: the caller's name, after checking that the caller has `role`. `dependency.role` says which (docs, tests)."""

    async def caller(request: Request) -> str:
        return authorise(request, role)

    caller.role = role  # type: ignore[attr-defined]
    return caller


async def requires_by_method(request: Request) -> str:
    """A dependency for routes of others: reading needs reader, anything else admin."""
    return authorise(request, role_for(request.method))


def role_for(method: str) -> Role:
    """Reading needs reader, anything else admin."""
    return Role.READER if method in ("GET", "HEAD", "OPTIONS") else Role.ADMIN


def role_of(dependant: Dependant, method: str) -> Role | None:
    """The role that a route asks for, from its dependencies; None: it is open to all."""
    if dependant.call is requires_by_method:
        return role_for(method)
    role = getattr(dependant.call, "role", None)
    if isinstance(role, Role):
        return role
    return next((found for each in dependant.dependencies if (found := role_of(each, method)) is not None), None)
