"""A route that changes its order while records wait: nothing is left out, nothing that waited loses its place."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.routing import line as lines
from streams.routing.line import Line
from streams.routing.orders import Orders
from streams.routing.routes import Order
from tests.unit.streams.routing.test_line import World


@dataclass
class Turning(World):
    """A world in which each change of the route is one of its order."""

    eras: list[tuple[int, Order]] = field(default_factory=list)  #: as it was, by the offset from which on

    def __post_init__(self) -> None:
        super().__post_init__()
        self.orders = Orders("key", 0)
        self.eras = [(0, "key")]

    def name(self, offset: int) -> bytes:
        return self.orders.key(self.keys[offset], offset)

    def respelled(self) -> None:
        order: Order = "none" if self.eras[-1][1] == "key" else "key"
        self.eras.append((self.line.position, order))
        super().respelled()
        self.orders.turn(order, self.line.position)

    def crash(self) -> None:
        turns = self.orders.dump(self.line.oldest())
        super().crash()
        self.orders = Orders(self.eras[-1][1], self.line.position, turns)

    def waited(self, offset: int) -> bool:
        """Whether the record was looked at by a route that keeps the order of keys."""
        return next(order for begin, order in reversed(self.eras) if begin <= offset) == "key"


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    keys=st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=60),
    failing=st.dictionaries(st.integers(0, 59), st.integers(1, 4), max_size=12),
)
def test_nothing_is_left_out_and_what_has_an_order_keeps_it(seed: int, keys: list[bytes], failing: dict[int, int]) -> None:
    world = Turning(seed, keys, failing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "RECORDS_MAX", 8)
        patch.setattr(lines, "KEY_RECORDS_MAX", 3)
        world.run()

    assert set(world.settled) == set(range(len(keys)))
    by_key: dict[bytes, list[int]] = defaultdict(list)
    for offset in world.settled:
        if world.waited(offset) and offset not in by_key[keys[offset]]:  # what a crash forgot comes again
            by_key[keys[offset]].append(offset)
    for found in by_key.values():
        assert found == sorted(found)


def test_what_held_before_is_forgotten_when_everything_of_then_is_settled() -> None:
    orders = Orders("key", 0)
    orders.turn("none", 10)
    orders.turn("none", 15)
    orders.turn("key", 20)

    assert orders.dump(5) == [[0, "key"], [10, "none"], [20, "key"]]
    assert [orders.key(b"k", offset) for offset in (9, 10, 20)] == [b"=k", b"#10", b"=k"]
    assert orders.dump(12) == [[0, "none"], [20, "key"]]
    assert orders.dump(20) == [[0, "key"]]


def test_a_state_of_before_there_were_turns_is_of_the_order_in_force() -> None:
    line: Line[int] = Line(0, {"position": 6, "keys": {b"#3".hex(): [3, 1]}})
    assert Orders("none", line.position).key(b"k", 3) == b"#3"
    assert Orders("key", 6, [[0, "none"]]).dump(3) == [[0, "none"], [6, "key"]]
