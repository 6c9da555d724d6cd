"""Many routes and source partitions, one destination: they share its breaker, and what it allows goes round."""

from __future__ import annotations

from dataclasses import dataclass, field

from streams.routing.breaker import KEYS_MAX, LEAST_MS, PAUSE_MS
from streams.routing.gates import Gate, Gates
from streams.routing.parse import parse_route
from streams.routing.routes import Destination


@dataclass(eq=False)
class Line:
    """One with something to do, until it is told otherwise."""

    route_id: str = "r"
    under_way: int = 0
    fresh: bool = True
    again: bool = True
    woken: int = field(default=0)

    def wants(self, now_ms: int, *, again: bool) -> bool:
        return self.fresh or (again and self.again)

    def look_again(self) -> None:
        self.woken += 1


def to(destination: dict[str, str]) -> Destination:
    return parse_route({"id": "r", "match": {}, "destination": destination}).destination


HOOK = to({"webhook": "https://example.com/a?token=1"})


def shared(*lines: Line) -> Gate:
    gates = Gates()
    (gate,) = {gates.enter(line, HOOK) for line in lines}
    return gate


def opened(gate: Gate) -> int:
    """When it was."""
    for number in range(KEYS_MAX):
        assert not gate.failed(0, number, "x")
    assert gate.failed(LEAST_MS, 0, "away")
    return LEAST_MS


def test_what_leads_to_one_place_shares_its_breaker() -> None:
    gates, first, second, third = Gates(), Line(), Line(), Line()
    gate = gates.enter(first, HOOK)
    assert gates.enter(second, to({"webhook": "https://example.com/a?token=2"})) is gate
    assert gates.enter(third, to({"webhook": "https://example.com/b"})) is not gate
    assert gates.enter(first, to({"module": "plan", "operation": "get-plan"})) is gates.enter(
        third, to({"module": "plan", "operation": "list-plans"})
    )
    assert (gate.name, gates.enter(first, to({"module": "plan", "operation": "get-plan"})).name) == ("https://example.com/a", "module plan")


def test_the_failures_of_all_count_together_and_a_success_of_any_counts_for_all() -> None:
    first, second = Line("a"), Line("b")
    gate = shared(first, second)
    now_ms = opened(gate)
    assert (gate.is_open, gate.error, list(gate.routes())) == (True, "away", ["a", "b"])
    assert gate.most(first, now_ms, 8) == gate.most(second, now_ms, 8) == (0, 0)
    assert gate.succeeded()
    assert (first.woken, second.woken) == (1, 1)
    assert gate.most(second, now_ms, 8) == (8, 8)
    assert not gate.succeeded()


def test_while_it_is_open_one_of_all_makes_the_attempt_and_the_turn_goes_round() -> None:
    lines = [Line(fresh=False) for _ in range(3)]
    gate = shared(*lines)
    opened(gate)
    for expected in [*lines, lines[0]]:
        now_ms = gate.breaker.open_until_ms or 0
        begun = []
        for line in reversed(lines):  # whoever asks first
            woken = expected.woken
            if gate.most(line, now_ms, 8) == (1, 1):
                line.under_way = 1
                begun.append(line)
            elif not begun:
                assert expected.woken == woken + 1, "who asks in vain says whose turn it is"
        assert begun == [expected]
        assert all(gate.most(line, now_ms + 100 * PAUSE_MS, 8)[0] == 0 for line in lines), "until it is known what became of it"
        expected.under_way = 0
        gate.failed(now_ms, 0, "x")


def test_who_has_nothing_to_attempt_stands_in_nobodys_way() -> None:
    idle, busy = Line(fresh=False, again=False), Line(fresh=False)
    gate = shared(idle, busy)
    opened(gate)
    assert gate.most(busy, gate.breaker.open_until_ms or 0, 8) == (1, 1)


def test_what_comes_for_the_first_time_is_tried_once_a_second_by_one_of_all_also_if_another_hangs() -> None:
    hanging, others = Line(), [Line(), Line(again=False)]
    gate = shared(hanging, *others)
    now_ms = opened(gate) + PAUSE_MS
    assert gate.most(hanging, now_ms, 8) == (1, 1)
    hanging.under_way = 1
    assert [gate.most(line, now_ms, 8) for line in others] == [(0, 0), (0, 0)]
    for line in (*others, *others):
        now_ms += PAUSE_MS
        assert [gate.most(each, now_ms, 8) for each in (line, *others)] == [(0, 1), (0, 0), (0, 0)]


def test_who_leaves_takes_its_turn_along_and_the_last_one_the_breaker() -> None:
    gates, first, second = Gates(), Line(), Line(fresh=False)
    gate = gates.enter(first, HOOK)
    gates.enter(second, HOOK)
    now_ms = opened(gate) + PAUSE_MS
    assert gate.most(first, now_ms, 8) == (1, 1)
    first.under_way = 1
    gates.leave(first, gate)
    assert gate.most(second, now_ms, 8) == (1, 0)
    gates.leave(second, gate)
    assert not gates.enter(second, HOOK).is_open
