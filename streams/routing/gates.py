"""The ways to the destinations of a worker: one circuit breaker for each, whatever routes and source partitions lead there. Pure.

A destination that is down is down for all of them: they count its failures together, and while it is open one of them makes the attempt
that it allows, each in its turn, if it has one to make. So a destination with many routes is left alone as one with a single one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from streams.routing.breaker import Breaker
from streams.routing.routes import Destination, ToModule


class Visitor(Protocol):
    """Who makes attempts at a destination: a route, on one source partition."""

    @property
    def route_id(self) -> str:
        """Of whose events they are."""

    @property
    def under_way(self) -> int:
        """Its attempts that have begun and not ended."""

    def wants(self, now_ms: int, *, again: bool) -> bool:
        """Whether it has an attempt to make now; without `again` only one of something that comes for the first time counts."""

    def look_again(self) -> None:
        """Something has changed that it may have waited for."""


class Gate:
    """The way to one destination."""

    def __init__(self, name: str) -> None:
        self.name = name  #: for reports
        self.breaker = Breaker()
        self.error = ""  #: what has opened it
        self._visitors: dict[Visitor, None] = {}  # whose turn it is comes first
        self._probe: Visitor | None = None  # whom the breaker has allowed an attempt last, of something that comes again

    @property
    def is_open(self) -> bool:
        """Whether the breaker is open: the destination is left alone."""
        return self.breaker.open_until_ms is not None

    def routes(self) -> Iterator[str]:
        """Those that lead here."""
        yield from sorted({visitor.route_id for visitor in self._visitors})

    def most(self, visitor: Visitor, now_ms: int, most: int) -> tuple[int, int]:
        """How many attempts of the visitor may be under way now, of at most `most`; and how many if one more comes for the first time."""
        again, fresh = self.breaker.most(now_ms, most)
        if not self.is_open:
            return again, fresh
        if self._probe is not None and self._probe.under_way:
            again = 0
        if not (again or fresh):
            return 0, 0
        first = next((other for other in self._visitors if not other.under_way and other.wants(now_ms, again=bool(again))), None)
        if first is not visitor:
            if first is not None:
                first.look_again()
            return 0, 0
        self._visitors[visitor] = self._visitors.pop(visitor)
        if again:
            self._probe = visitor
        if fresh:
            self.breaker.began(now_ms)
        return again, fresh

    def succeeded(self) -> bool:
        """An attempt has shown that the destination is there. Whether this has closed the breaker: then all may go on."""
        closed = self.breaker.succeeded()
        if closed:
            for visitor in self._visitors:
                visitor.look_again()
        return closed

    def failed(self, now_ms: int, key: object, error: str) -> bool:
        """An attempt has failed in a way that speaks of the destination; `key` is the same only for what waits for each other. Whether
        this has opened the breaker."""
        opened = self.breaker.failed(now_ms, key)
        if opened:
            self.error = error
        return opened


class Gates:
    """Those of a worker."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}

    def enter(self, visitor: Visitor, destination: Destination) -> Gate:
        """The way there, that the visitor shares from now on."""
        name = _name(destination)
        gate = self._gates.setdefault(name, Gate(name))
        gate._visitors.setdefault(visitor)
        return gate

    def leave(self, visitor: Visitor, gate: Gate) -> None:
        """The visitor goes there no more; the last one takes the breaker along."""
        gate._visitors.pop(visitor, None)
        if gate._probe is visitor:
            gate._probe = None
        if not gate._visitors and self._gates.get(gate.name) is gate:
            del self._gates[gate.name]


def _name(destination: Destination) -> str:
    """What is down together: a URL without its query, a module with all its operations."""
    return f"module {destination.module}" if isinstance(destination, ToModule) else destination.shown
