"""Which records of a source partition wait for each other, also after a route has changed its `order`. Pure.

What was looked at under one order is named by its keys, also in states. So a new order holds for what is looked at from then on; what waits
keeps the names under which it waits until it is settled.
"""

from __future__ import annotations

from streams.records import Json
from streams.routing.items import line_key
from streams.routing.routes import Order


class Orders:
    """See the module. `order` holds from `position` on; `turns` as `dump` gave them tell what held before (None: the same)."""

    def __init__(self, order: Order, position: int, turns: Json = None) -> None:
        self._turns: list[tuple[int, Order]] = [(int(offset), held) for offset, held in turns or ()]  # offset: from there on
        if not self._turns:
            self._turns = [(0, order)]
        self.turn(order, position)

    def turn(self, order: Order, position: int) -> None:
        """From this offset on it is that order; nothing behind it was looked at."""
        if self._turns[-1][1] != order:
            self._turns.append((position, order))

    def key(self, key: bytes | None, offset: int) -> bytes:
        """The key under which a record stands in line."""
        held = self._turns[-1][1]
        if offset < self._turns[-1][0]:
            held = next(order for begin, order in reversed(self._turns) if begin <= offset)
        return line_key(key, offset, ordered=held == "key")

    def dump(self, oldest: int) -> Json:
        """As JSON, for states. Before `oldest` everything is settled: what held until then is forgotten."""
        while len(self._turns) > 1 and self._turns[1][0] <= oldest:
            del self._turns[0]
        return [[0 if number == 0 else offset, order] for number, (offset, order) in enumerate(self._turns)]
