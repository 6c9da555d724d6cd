"""How a group stands: seen, missing, until when."""

from __future__ import annotations

from typing import Any

import pytest

from streams.correlation.chain import Chain
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule
from streams.correlation.sentences import moment
from streams.correlation.standing import Standing, standing
from streams.records import iso, to_micros
from tests.unit.streams.correlation.oracle import Record
from tests.unit.streams.correlation.strategies import feed

EVENTS = {name: {"type": name} for name in "abc"}


def stand(text: str, *, suppress: int = 0, **correlation: Any) -> Standing:
    """After records `a0 b1`; the group is that of all records."""
    of = {"timespan": "10s", "grace": "2s", **correlation}
    active = ActiveRule(rule=parse_rule({"id": "r", "events": EVENTS, "correlation": of, "suppress": suppress}), version=3, order=0)
    chain = Chain([active])
    feed(chain, [Record(int(word[1:]), word, word[0], "g", 4) for word in text.split()])
    found = chain.engine.group("r", "[]")
    group, watermark = found if found is not None else (None, 0)
    return standing(active, "[]", group, watermark)


def at(seconds: int) -> str:
    return f"2023-11-14T22:{seconds // 60:02}:{seconds % 60:02}.000000Z"


@pytest.mark.parametrize(
    ("text", "correlation", "seen", "missing", "until"),
    [
        ("a0 a1", {"type": "event_count", "events": ["a"], "condition": {"gte": 5}}, ["a0", "a1"], ("3 more of a",), 10),
        ("a0 a1", {"type": "event_count", "events": ["a"], "condition": {"gt": 5}, "window": "session", "gap": 4000}, ["a0", "a1"],
         ("4 more of a",), 5),
        ("a1", {"type": "value_sum", "events": ["a"], "condition": {"gte": 5, "field": "data.v"}, "window": "tumbling"}, ["a1"],
         ("at least 5 (it is 4)",), 10),
        ("b1 a2 a3", {"type": "temporal", "events": ["a", "b", "c"]}, ["b1", "a3"], ("c",), 11),
        ("a1 b2", {"type": "temporal_ordered", "events": ["a", {"event": "b", "times": 2}, "c"]}, ["a1", "b2"], ("b", "c"), 11),
        ("a1 b2 c5", {"type": "temporal_ordered", "events": ["a", "b", {"not": "a"}]}, ["a1", "b2"], (), 11),
        ("a1 a2 c5", {"type": "absence", "events": ["a", "b"]}, ["a1", "a2"], (), 11),
    ],
)  # fmt: skip
def test_what_was_seen_what_is_missing_and_until_when(
    text: str, correlation: dict[str, Any], seen: list[str], missing: tuple[str, ...], until: int
) -> None:
    found = stand(text, **correlation)
    assert [record.id for record in found.seen] == seen
    assert found.missing == missing
    assert found.until is not None
    assert iso(found.until) == at(until)
    assert found.to_dict()["until"] == at(until)
    assert moment(to_micros(found.until)) in found.sentences[0]


def test_nothing_seen_says_what_the_next_match_needs() -> None:
    found = stand("", type="event_count", events=["a"], condition={"gte": 5})
    assert (found.count, found.until) == (0, None)
    assert found.sentences == ("Nothing that still counts has been seen: the next match needs at least 5 within 10s, of a.",)


def clock(seconds: int) -> str:
    return f"2023-11-14 22:{seconds // 60:02}:{seconds % 60:02} UTC"


def test_sentences_say_what_a_person_needs_to_know() -> None:
    assert stand("a0 a1", type="event_count", events=["a"], condition={"gte": 5}).sentences == (
        f"Seen: 2 records of a, the last at {clock(1)}. Missing: 3 more of a before {clock(10)}.",
    )
    assert stand("a1 c4", type="absence", events=["a", "b"]).sentences == (
        f"1 record of a without an answer, the first at {clock(1)}. It fires if no b comes before {clock(11)}.",
    )


def test_silence_and_what_waits_for_the_watermark() -> None:
    of = {"type": "event_count", "events": ["a"], "condition": {"gte": 1}}
    silent = stand("a0 a1 a2", suppress=60_000, **of)
    assert (silent.suppressed, silent.sentences[-1]) == (2, f"Matches are kept silent until {clock(60)}; 2 so far.")
    waiting = stand("a0 a1", output="final", **of)
    assert (waiting.waiting, waiting.sentences[-1]) == (2, "2 records wait for the watermark.")
