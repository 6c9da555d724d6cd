"""A group whose records come in their order, as the history gives them: what is found at a record is said once, and never revised. Pure.

It says what an `EagerGroup` says of such records, without what that keeps in order to take steps back.
"""

from __future__ import annotations

from streams.correlation.group import Base
from streams.correlation.rules import ActiveRule
from streams.correlation.seen import Arrival, Draft, Seen
from streams.records import Json


class InOrderGroup(Base):
    """See the module. Of rules that say something only at records, and read no composites: those may be revised."""

    __slots__ = ()

    deferred = False
    waiting = 0

    def __init__(self, active: ActiveRule, key: str) -> None:
        super().__init__(active, key, journaled=False)

    def add(self, seen: Seen, arrival: Arrival, watermark_us: int) -> list[Draft]:
        """See `Group.add`. No record before it will come."""
        self._hold(seen, watermark_us)
        found = self.fold.add(seen)
        if found is None or (said := self._silence.said(found)) is None:
            return []
        return [self._draft(said, (arrival, seen.id))]

    def remove(self, seen: Seen) -> list[Draft]:
        """See `Group.remove`."""
        raise AssertionError("records of the history are not revised")

    def replace(self, before: Seen, after: Seen) -> list[Draft]:
        """See `Group.replace`."""
        raise AssertionError("records of the history are not revised")

    def settle(self, watermark_us: int) -> list[Draft]:
        """See `Group.settle`."""
        self.settled_us = watermark_us
        self.fold.forget(watermark_us)
        return []

    def flush(self) -> list[Draft]:
        """See `Group.flush`."""
        return []

    def due_us(self) -> int | None:
        """See `Group.due_us`: when the whole group may be over."""
        return self._over_us()

    def empty(self, watermark_us: int) -> bool:
        """See `Group.empty`."""
        return self._silence.over(watermark_us) and self._over(watermark_us)

    def standing(self) -> tuple[tuple[Seen, ...], float]:
        """See `Fold.standing`."""
        return self.fold.standing()

    def dump(self) -> Json:
        """See `Group.dump`."""
        return {**self._dump_base(), "fold": self.fold.dump()}

    def load(self, state: Json) -> None:
        """See `Group.load`."""
        self._load_base(state)
        self.fold.load(state["fold"])
