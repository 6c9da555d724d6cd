"""Which actions of a partition of composites wait, in which line, and from where a successor goes on. Pure.

Theory of operation. Each composite is *offered* once, in the order of the log; its errands go to *lanes*: one for what stays in Kafka, one
for each server that webhooks call. A lane holds a bounded number of errands. What does not fit is left where it lies: the lane is *behind*
from there on, takes nothing that is offered, and reads the log itself when it has room again, until it has come to what was offered last.
So a dead server costs a bounded amount of memory, and delays nobody but those who wait for it, however long it is dead.

The state that a checkpoint keeps is a place in the log for what was offered, and one for each lane that has something left to do. A
successor goes on from there: what was done out of order behind such a place is done again, with the same idempotency keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from streams.faust_app.action_plan import Errand, lane_of
from streams.log.ports import Stored
from streams.records import Json

Place: TypeAlias = tuple[int, int]  #: offset of a composite, and index of its action

#: Errands that a lane of webhooks holds.
CALLS_MAX = 100
#: Errands that the lane of Kafka holds; they wait for no one but the broker.
WRITES_MAX = 2000
#: Bytes that a lane holds, of composites with their actions; one may be larger.
LANE_BYTES_MAX = 2 * 1024 * 1024
#: Lanes that have something to do at a time. Beyond it nothing further is offered: the last resort.
LANES_MAX = 200


@dataclass(frozen=True, slots=True)
class Item:
    """An errand with the composite's record, which becomes its dead letter if need be."""

    place: Place
    errand: Errand
    raw: Stored

    @property
    def size(self) -> int:
        """About how much memory it takes, bytes."""
        return len(self.raw.value or b"") + sum(len(value) for _, value in self.raw.headers)


@dataclass(slots=True)
class Lane:
    """One line."""

    items_max: int
    todo: dict[Place, Item] = field(default_factory=dict)  #: in the order of places
    behind: Place | None = None  #: first place that may hold something for it and was not taken
    size: int = 0

    def has_room(self, size: int) -> bool:
        """Whether an errand of this size fits; one always fits into an empty lane."""
        return not self.todo or (len(self.todo) < self.items_max and self.size + size <= LANE_BYTES_MAX)

    @property
    def has_much_room(self) -> bool:
        """Whether it is worth reading the log."""
        return 2 * len(self.todo) <= self.items_max and 2 * self.size <= LANE_BYTES_MAX

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self.todo and self.behind is None

    @property
    def place(self) -> Place | None:
        """Where a successor goes on; None: with what is offered next."""
        first = next(iter(self.todo), None)
        return self.behind if first is None else first

    def take(self, item: Item) -> None:
        """Holds an errand."""
        self.todo[item.place] = item
        self.size += item.size

    def finish(self, place: Place) -> None:
        """It is done, or given up and reported."""
        self.size -= self.todo.pop(place).size


class Lanes:
    """All lanes of one partition."""

    def __init__(self, state: Json, *, position: int) -> None:
        """As `dump` left it; without a state everything from `position` on is to be done."""
        self.position: int = position if state is None else int(state["position"])  #: offset from which on nothing was offered
        self.lanes: dict[str, Lane] = {}
        for name, (offset, index) in ({} if state is None else state["lanes"]).items():
            self._lane(name).behind = (int(offset), int(index))

    def dump(self) -> Json:
        """As JSON, for checkpoints."""
        places = {name: lane.place for name, lane in self.lanes.items()}
        return {"position": self.position, "lanes": {name: list(place) for name, place in places.items() if place is not None}}

    def offer(self, items: Sequence[Item]) -> list[Item] | None:
        """The errands of the next composite; those that lanes have taken. None: there are too many lanes, and nothing was taken."""
        names = {lane_of(item.errand) for item in items}
        if self.lanes and names - self.lanes.keys() and len(self.lanes.keys() | names) > LANES_MAX:
            return None
        taken = []
        for item in items:
            lane = self._lane(lane_of(item.errand))
            if lane.behind is not None:
                continue
            if lane.has_room(item.size):
                lane.take(item)
                taken.append(item)
            else:
                lane.behind = item.place
        return taken

    def refill(self, name: str, items: Sequence[Item]) -> tuple[list[Item], bool]:
        """The errands of a composite that a lane that is behind has read: those that it has taken, and whether it is full."""
        lane = self.lanes[name]
        taken: list[Item] = []
        for item in items:
            if lane_of(item.errand) != name or lane.behind is None or item.place < lane.behind:
                continue
            if not lane.has_room(item.size):
                lane.behind = item.place
                return taken, True
            lane.take(item)
            lane.behind = (item.place[0], item.place[1] + 1)
            taken.append(item)
        return taken, False

    def read_to(self, name: str, offset: int) -> None:
        """A lane that is behind has read the log up to `offset`; where that is all that was offered, it is behind no more."""
        lane = self.lanes[name]
        lane.behind = None if offset >= self.position else (offset, 0)
        self.forget(name)

    def forget(self, name: str) -> None:
        """Drops a lane that has nothing left to do."""
        if self.lanes[name].idle:
            del self.lanes[name]

    def finish(self, item: Item) -> None:
        """It is done, or given up and reported. Its lane may be gone after that."""
        name = lane_of(item.errand)
        self.lanes[name].finish(item.place)
        self.forget(name)

    def _lane(self, name: str) -> Lane:
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane(CALLS_MAX if name else WRITES_MAX)
        return lane
