"""The line of a route: order of keys, nothing left out, bounded memory, and what a successor takes over."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams.routing import line as lines
from streams.routing.items import Failure, Item, line_key, own_key
from streams.routing.line import Line
from streams.routing.turns import FRESH_IN_A_ROW


def item(offset: int, key: bytes) -> Item[int]:
    return Item(offset, key, 0, 10, offset)


@dataclass
class World:
    """A log, a route's line over it, and what it settled, under a seed."""

    seed: int
    keys: list[bytes]
    failures: dict[int, int] = field(default_factory=dict)  #: offset → attempts that fail

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.now = 0
        self.settled: list[int] = []
        self.line: Line[int] = Line(0)
        self.left = dict(self.failures)
        self.under_way: list[tuple[Item[int], Failure | None]] = []
        self.sweep: int | None = None
        self.sweep_end = 0
        self.looking = False
        self.most_held = 0
        self.troubled = True

    def step(self) -> None:
        moves = [self.offer, self.offer, self.begin, self.begin, self.finish, self.finish, self.swept, self.swept, self.tick]
        if self.troubled and self.random.random() < 0.02:
            moves = [self.crash, self.respelled]
        self.random.choice(moves)()
        self.most_held = max(self.most_held, self.line._records)

    def offer(self) -> None:
        if self.line.position < len(self.keys):
            self.line.offer(item(self.line.position, self.name(self.line.position)))

    def name(self, offset: int) -> bytes:
        """The key under which a record stands in line."""
        return self.keys[offset]

    def begin(self) -> None:
        begun = self.line.begin(self.now, most=5)
        if begun is not None:
            assert begun[0].key not in {one.key for one, _ in self.under_way}, "two of a key at a time"
            self.under_way.append(begun)

    def finish(self) -> None:
        if not self.under_way:
            return
        taken, failure = self.under_way.pop(self.random.randrange(len(self.under_way)))
        attempts = 1 if failure is None else failure.attempts + 1
        if self.left.get(taken.offset, 0) > 0:
            self.left[taken.offset] -= 1
            due = self.now + self.random.randrange(20)
            self.line.fail(taken.key, Failure(attempts=attempts, first_ms=0, due_ms=due, code="x", message=""))
        else:
            assert self.line.settle(taken.key).offset == taken.offset
            self.settled.append(taken.offset)

    def swept(self) -> None:
        if self.sweep is None:
            if self.line.sweep_from() is None:
                return
            self.sweep_end = self.line.begin_sweep()
            self.sweep = self.line.sweep_next()
            if self.random.random() < 0.5:
                return  # nothing is read yet, and meanwhile another key may become hungry for what lies before
        for _ in range(self.random.randrange(1, 10)):
            place = self.line.sweep_next()
            if self.sweep is None or place is None:
                self.line.end_sweep()
                self.sweep = None
                return
            if place > self.sweep + self.random.randrange(3):
                self.sweep, self.looking = place, False  # nobody waits for what lies between
            if self.sweep >= self.sweep_end:
                self.line.swept(self.sweep_end)
                continue
            if self.line.wants(self.sweep, self.name(self.sweep)):
                if not self.looking and self.random.random() < 0.3:
                    self.looking = True  # what it has to do with the record is being found out
                    return
                self.line.refill(item(self.sweep, self.name(self.sweep)))
            self.looking = False
            self.sweep += 1

    def tick(self) -> None:
        self.now += self.random.randrange(10)

    def crash(self) -> None:
        self.line = Line(0, self.line.dump())
        self.under_way, self.sweep, self.looking = [], None, False

    def respelled(self) -> None:
        """The route has changed."""
        self.line.spill(self.random.choice((None, self.now)))

    @property
    def done(self) -> bool:
        return self.line.position == len(self.keys) and self.line.settled

    def run(self) -> None:
        for count in range(200_000):
            if self.done:
                return
            # A crash or a change wakes what was forgotten: it must come to an end without them.
            self.troubled = count < 20 * len(self.keys)
            self.step()
        raise AssertionError(f"seed {self.seed}: it does not come to an end: {self.line.dump()}")


@example(seed=220764, keys=[b"a"] * 6 + [b"b", b"b", b"a"] + [b"b"] * 4, failing={8: 1})  # hungry behind a sweep that has read nothing yet
@example(seed=369, keys=[b"a"] * 3, failing={0: 1, 1: 2})  # begun twice after a change of the route in the middle of a sweep
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    keys=st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=80),
    failing=st.dictionaries(st.integers(0, 79), st.integers(1, 4), max_size=12),
)
def test_every_record_is_settled_in_the_order_of_its_key_whatever_fails_crashes_or_changes(
    seed: int, keys: list[bytes], failing: dict[int, int]
) -> None:
    world = World(seed, keys, failing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "RECORDS_MAX", 8)
        patch.setattr(lines, "KEY_RECORDS_MAX", 3)
        world.run()

    by_key: dict[bytes, list[int]] = defaultdict(list)
    for offset in world.settled:
        if offset not in by_key[keys[offset]]:  # what a crash forgot comes again
            by_key[keys[offset]].append(offset)
    assert sorted(offset for found in by_key.values() for offset in found) == list(range(len(keys)))
    for found in by_key.values():
        assert found == sorted(found)
    assert world.most_held <= 8 + 4 + 1


def sweep_all(line: Line[int], name: Callable[[int], bytes]) -> list[int]:
    """One sweep; the offsets that it read."""
    end, read = line.begin_sweep(), list[int]()
    while (place := line.sweep_next()) is not None and place < end:
        read.append(place)
        if line.wants(place, name(place)):
            line.refill(item(place, name(place)))
        if read[-1] == place == line.sweep_next():
            line.swept(place + 1)
    line.end_sweep()
    return read


def test_a_key_that_is_due_while_a_sweep_for_another_has_gone_past_it_waits_for_the_next_sweep() -> None:
    failed = [1, 0, 100, "x", "", 0]
    line: Line[int] = Line(0, {"position": 6, "keys": {b"a".hex(): [2, 2], b"b".hex(): [1, 3, *failed]}})
    assert line.sweep_from() == 2
    line.begin_sweep()
    for offset in (2, 3, 4):
        if line.wants(offset, b"ab"[offset % 2 : offset % 2 + 1]):
            line.refill(item(offset, b"a"))
    assert line.begin(100) is not None, "of a; b is due now, and its first record lies behind the sweep"
    assert not line.wants(5, b"b")
    line.end_sweep()
    assert line.sweep_from() == 1


def test_a_key_that_has_failed_is_read_alone_and_with_each_success_further_ahead() -> None:
    failed = [1, 0, 100, "x", "", 0]
    keys = {b"a".hex(): [0, 50, *failed], b"b".hex(): [90_001, 4000, *failed]}
    line: Line[int] = Line(0, {"position": 100_000, "keys": keys, "ends": [98, 99_999]})

    def name(offset: int) -> bytes:
        return b"ab"[offset % 2 : offset % 2 + 1]

    assert line.begin(100) is None
    assert sweep_all(line, name) == [0, 90_001], "nothing of what lies behind, nor between"
    for key in (b"a", b"b"):
        assert line.begin(100) is not None
        line.fail(key, Failure(attempts=2, first_ms=0, due_ms=200 if key == b"a" else 1000, code="x", message=""))
    brought = []
    while line.begin(200) is not None:
        line.settle(b"a")
        if line.sweep_from() is not None:
            brought.append(len([offset for offset in sweep_all(line, name) if offset % 2 == 0]))
    assert brought == [2, 4, 8, 16, 19], "twice as many each time, up to the last"


def test_the_first_that_are_well_again_leave_room_for_the_others() -> None:
    failed = [1, 0, 1000, "x", "", 0]
    keys = [b"%03d" % number for number in range(100)]
    state = {key.hex(): [number, 100, *([] if number < 3 else failed)] for number, key in enumerate(keys)}
    line: Line[int] = Line(0, {"position": 10_000, "keys": state})
    sweep_all(line, lambda offset: keys[offset % 100])
    assert line._records == 3 * lines.RECORDS_MAX // 2 // 100

    assert line.begin(1000) is not None
    assert line.sweep_from() is not None
    sweep_all(line, lambda offset: keys[offset % 100])
    assert len({line.begin(1000)[0].key for _ in range(40)}) == 40  # type: ignore[index]


def test_who_has_nothing_left_in_the_log_is_not_looked_for() -> None:
    line: Line[int] = Line(0)
    for offset, key in enumerate((b"a", b"b", b"a", b"b")):
        assert line.offer(item(offset, key))
    line.spill()  # as a route does that has changed: two of each are in the log alone
    for offset in range(4, 1000):
        line.skip_to(offset + 1)

    assert sweep_all(line, lambda offset: b"ab"[offset % 2 : offset % 2 + 1]) == [0, 1, 2, 3]
    while (begun := line.begin(0)) is not None:
        line.settle(begun[0].key)
    assert line.settled


def test_what_has_failed_at_another_destination_is_due_at_once() -> None:
    line: Line[int] = Line(0)
    for offset, key in enumerate((b"a", b"b")):
        assert line.offer(item(offset, key))
        assert line.begin(0) is not None
        line.fail(key, Failure(attempts=1, first_ms=0, due_ms=5 if key == b"b" else 3_600_000, code="webhook.failed", message="HTTP 503"))

    line.spill()
    assert line.next_due_ms() == 5
    line.spill(10)
    assert line.begin(10) is None, "it is read again first"
    assert sweep_all(line, lambda offset: b"ab"[offset : offset + 1]) == [0, 1]

    tried = [found for found in (line.begin(10), line.begin(10)) if found is not None]
    assert sorted(each.key for each, _ in tried) == [b"a", b"b"]
    assert all(failure is not None and failure.attempts == 1 for _, failure in tried), "what was tried counts on"


def test_what_is_gone_from_the_log_is_waited_for_by_nobody() -> None:
    keys = {b"a".hex(): [0, 2], b"b".hex(): [6, 2]}
    line: Line[int] = Line(0, {"position": 10, "keys": keys, "ends": [2, 8]})
    line.begin_sweep()
    assert line.sweep_next() == 0
    line.wants(5, b"c")  # the first that is left
    assert line.sweep_next() == 6
    line.swept(10)
    line.end_sweep()
    assert line.settled


def test_a_state_that_does_not_say_where_keys_end_is_read_to_its_position() -> None:
    line: Line[int] = Line(0, {"position": 6, "keys": {b"a".hex(): [0, 1]}})
    assert sweep_all(line, lambda offset: b"a" if offset in (0, 5) else b"b") == [0, 1, 2, 3, 4, 5]
    assert line._records == 2


def test_a_sweep_ends_where_it_was_to_end_though_records_come_all_the_time() -> None:
    line: Line[int] = Line(0, {"position": 4, "keys": {b"a".hex(): [0, 2], b"b".hex(): [1, 2]}, "ends": [2, 3]})
    end, came = line.begin_sweep(), iter(range(4, 100))
    assert end == 4
    assert line.offer(item(next(came), b"b"))
    for offset in range(end):
        assert line.offer(item(next(came), b"c"))
        assert line.wants(offset, b"ab"[offset % 2 : offset % 2 + 1])
        assert line.refill(item(offset, b"ab"[offset % 2 : offset % 2 + 1]))
    assert line.sweep_next() is None
    line.end_sweep()

    settled = []
    while (begun := line.begin(0)) is not None:
        settled.append(line.settle(begun[0].key).offset)
    assert sorted(settled) == [0, 1, 2, 3, 5, 6, 7, 8], "of b one is left in the log"
    assert (len(line), line.sweep_from()) == (1, 4), "a waits for nothing, b for what came during the sweep"
    assert sweep_all(line, lambda offset: b"b") == [4]
    assert line.begin(0) is not None
    line.settle(b"b")
    assert line.settled


def test_what_comes_out_again_leaves_room_for_what_is_live() -> None:
    keys = [b"%03d" % number for number in range(100)]
    line: Line[int] = Line(0, {"position": 10_000, "keys": {key.hex(): [number, 100] for number, key in enumerate(keys)}})
    read = sweep_all(line, lambda offset: keys[offset % 100])
    assert read == list(range(lines.RECORDS_MAX // 2)), "each has its share, and no more is read"
    live = [line.offer(item(10_000 + number, b"live-%d" % number)) for number in range(lines.RECORDS_MAX + 1)]
    assert live == [True] * lines.RECORDS_MAX + [False]

    for number in range(lines.RECORDS_MAX // 4 - 1 + lines.RECORDS_MAX):
        begun = line.begin(0)
        assert begun is not None
        line.settle(begun[0].key)
        if number < 40:
            assert begun[0].key.startswith(b"live") == (number % (FRESH_IN_A_ROW + 1) < FRESH_IN_A_ROW), "both get on"
    assert line.sweep_from() is None, "as long as no key lacks a record a sweep would be for little"


def test_other_keys_pass_a_key_that_fails() -> None:
    line: Line[int] = Line(0)
    for offset, key in enumerate((b"a", b"b", b"a", b"b")):
        line.offer(item(offset, key))
    assert line.begin(0) is not None
    line.fail(b"a", Failure(attempts=1, first_ms=0, due_ms=1000, code="x", message=""))

    settled = []
    while (begun := line.begin(10)) is not None:
        line.settle(begun[0].key)
        settled.append(begun[0].offset)

    assert settled == [1, 3]
    assert line.next_due_ms() == 1000
    assert [(key, offset, waiting) for key, offset, waiting, _ in line.parked()] == [(b"a", 0, 2)]


def test_records_without_a_key_or_order_wait_for_nobody() -> None:
    assert line_key(b"k", 7, ordered=True) == b"=k"
    assert line_key(b"#7", 7, ordered=True) != own_key(7)
    assert line_key(b"k", 7, ordered=False) == line_key(None, 7, ordered=True) == own_key(7)


def test_who_could_be_attempted_waits_since_it_came_or_was_due_again_and_who_is_parked_does_not() -> None:
    line: Line[int] = Line(0)
    for offset, key in enumerate((b"a", b"b")):
        assert line.offer(Item(offset, key, 100 + offset, 10, offset))
    assert line.waits_since_ms() == 100
    line.begin(200, 1)
    line.fail(b"a", Failure(attempts=1, first_ms=200, due_ms=300, code="x", message="x"))
    assert line.waits_since_ms() == 101
    line.begin(200, 1)
    assert line.waits_since_ms() is None
    line.settle(b"b")
    assert line.begin(300, 0) is None
    assert line.waits_since_ms() == 300
