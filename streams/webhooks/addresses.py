"""Where a webhook may go: https to public addresses, anything to loopback, further networks only if a setting names them. Pure.

A URL is checked by its form; whether it may be called is decided by the address that is connected to, after the name was resolved, so a
name that points elsewhere the second time it is asked for (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import urlsplit

from streams.errors import InvalidInput

Network: TypeAlias = IPv4Network | IPv6Network

#: Characters of a URL.
URL_CHARACTERS_MAX = 4096
_PORTS = {"http": 80, "https": 443}
#: IPv6 addresses of translators that lead to the IPv4 address in their last 32 bits (RFC 6052).
_NAT64 = ip_network("64:ff9b::/96")
#: The last label of a host that is meant as an address (WHATWG URL, "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL, taken apart."""

    scheme: str
    host: str  #: without brackets
    port: int
    path: str  #: with the query

    @property
    def origin(self) -> str:
        """Scheme, host and port: what shares a queue, and the fate of its server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" if self.port == _PORTS[self.scheme] else f"{self.scheme}://{host}:{self.port}"

    @property
    def shown(self) -> str:
        """For reports: without the query, which may hold a secret."""
        return self.origin + self.path.partition("?")[0]

    @property
    def url(self) -> str:
        """All of it."""
        return self.origin + self.path


def target_of(url: str) -> Target:
    """The parts of a webhook's URL. Raises `InvalidInput` (`webhook.url-invalid`)."""
    if len(url) > URL_CHARACTERS_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise _invalid(f"it has at most {URL_CHARACTERS_MAX} printable ASCII characters and no space")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _invalid(str(error)) from error
    if parts.scheme not in _PORTS or not host:
        raise _invalid("it begins with https:// (or http://, for this machine) and names a host")
    if parts.username is not None or parts.password is not None:
        raise _invalid("a user and password in it would be shown in reports; use a header")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(scheme=parts.scheme, host=host, port=_PORTS[parts.scheme] if port is None else port, path=path)


def _invalid(why: str) -> InvalidInput:
    return InvalidInput("webhook.url-invalid", f"This is no URL of a webhook: {why}.")


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks in CIDR notation, comma separated. Raises `ValueError`."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def refusal(scheme: str, address: str, allowed: Sequence[Network]) -> str | None:
    """Why a call by `scheme` may not go to this address; None: it may."""
    found = _effective(ip_address(address.partition("%")[0]))
    if found.is_loopback or any(found in network for network in allowed if network.version == found.version):
        return None
    if not found.is_global or found.is_multicast:
        return f"{address} is no public address; MPLP_WEBHOOK_NETWORKS can allow its network"
    if scheme != "https":
        return f"{address} is another machine, which is only called by https"
    return None


def refusal_of(target: Target, allowed: Sequence[Network]) -> str | None:
    """Why no call of this webhook could be made, whatever its host's name leads to; None: that is seen when it is called."""
    try:
        address = ip_address(target.host.partition("%")[0])
    except ValueError:
        if _NUMBER.fullmatch(target.host.rpartition(".")[2]):
            return f"{target.host} is no name, and an address only to some systems; an IPv4 address has four decimal numbers"
        here = target.host == "localhost" or target.host.endswith(".localhost")
        if target.scheme == "https" or here or allowed:
            return None
        return f"{target.host} is another machine, which is only called by https; MPLP_WEBHOOK_NETWORKS can allow its network"
    return refusal(target.scheme, str(address), allowed)


def _effective(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Where packets to the address end: IPv6 has several ways to write an IPv4 address."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
    return address
