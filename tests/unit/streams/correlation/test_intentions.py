"""What goes along with a composite."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import limits
from streams.correlation.actions import IntendedCall, IntendedEvent, IntendedSignal, IntendedStart, Unrendered, as_json
from streams.correlation.explain import composite
from streams.correlation.intentions import headers_of_said, packed, unpacked
from streams.correlation.rules import ActiveRule, Rule
from streams.correlation.seen import Draft, Found, Seen
from streams.errors import InvalidInput
from streams.records import CompositeEvent
from tests.unit.streams.correlation.test_actions import RECORDS, intended, rule, said

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def headers(of: Rule, *, depths: tuple[int, ...] = (), **changes: Any) -> dict[str, bytes]:
    records = tuple(seen._replace(depth=depth) for seen, depth in zip(RECORDS, depths or (0, 0, 0), strict=True))
    draft = Draft("r", '[7,"ex"]', "composite-id", Found("e2", 0, 1, records, 3, 3), **changes)
    return dict(headers_of_said(of, composite(ActiveRule(rule=of, version=2, order=0), draft), draft))


def test_what_was_intended_is_read_back_from_the_composite() -> None:
    actions = [
        {"emit": "x.happened"}, {"start-workflow": {"id": "w", "input": {"n": "{{composite.event_count}}"}}},
        {"signal-workflow": {"execution": "{{group.execution_id}}", "name": "stop", "data": None}}, {"webhook": "https://x/"},
        {"webhook": {"url": "https://y/", "headers": {"x": "1"}, "body": {"all": "{{events.map(e, e.id)}}"}}}, {"emit": "{{events[9].id}}"},
    ]  # fmt: skip
    of = rule(*actions)
    value = headers(of)["mplp_actions"]
    assert b"event_count" not in value  # what the composite says itself is not repeated
    found = unpacked(value, said(of))
    assert [type(each) for each in found] == [IntendedEvent, IntendedStart, IntendedSignal, IntendedCall, IntendedCall, Unrendered]
    assert found == intended(*actions)


def test_a_composite_that_acts_on_nothing_has_no_header_and_only_the_first_saying_acts() -> None:
    assert headers(rule()) == {}
    of = rule({"emit": "x"})
    assert set(headers(of)) == {"mplp_actions"}
    assert headers(of, revision=1) == headers(of, revision=2, retracted=True) == {}


def test_a_composite_is_as_deep_as_the_deepest_of_its_records() -> None:
    assert headers(rule(), depths=(0, 3, 1)) == {"mplp_depth": b"3"}
    assert headers(rule({"emit": "x"}), depths=(2, 0, 0), revision=1) == {"mplp_depth": b"2"}


def test_what_is_too_large_is_not_performed_and_the_rest_is() -> None:
    big = "x" * (limits.PAYLOAD_BYTES_MAX // 2)
    composite_event = said(rule())
    start = IntendedStart(key="k", workflow_id="w", input=big)
    found = unpacked(packed([start, start, IntendedEvent(key="k", type="x", subject="s", data={})]), composite_event)
    assert [type(each) for each in found] == [IntendedStart, Unrendered, IntendedEvent]
    assert isinstance(found[1], Unrendered)
    assert (found[1].code, found[1].action, found[1].index) == ("payload.too-large", "start-workflow", 1)


def test_what_is_no_json_is_not_performed() -> None:
    (found,) = unpacked(packed([IntendedSignal(key="k", execution_id="e", name="n", data=2**70)]), said(rule()))
    assert isinstance(found, Unrendered)
    assert (found.code, found.action) == ("action.unrendered", "signal-workflow")


@pytest.mark.parametrize("value", [b"", b"{", b"[1]", b'[{"action": "fly"}]', b'[{"action": "emit"}]', b"null", b'{"action": "emit"}'])
def test_what_another_version_wrote_is_an_error_with_a_code(value: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        unpacked(value, said(rule()))
    assert refused.value.code == "action.unreadable"


@given(st.lists(st.tuples(JSON, st.booleans()), max_size=5))
def test_any_input_and_body_is_read_back(values: list[tuple[Any, bool]]) -> None:
    composite_event: CompositeEvent = replace(said(rule()), id="c")
    body = as_json(composite_event)
    given_ones = [IntendedCall(key="k", url="https://x", headers={}, body=body if whole else value, whole=whole) for value, whole in values]
    found = unpacked(packed(given_ones), composite_event)
    assert [replace(each, key="k") for each in found if isinstance(each, IntendedCall)] == orjson_round_trip(given_ones)


def orjson_round_trip(calls: list[IntendedCall]) -> list[IntendedCall]:
    return [replace(call, body=call.body if call.whole else orjson.loads(orjson.dumps(call.body))) for call in calls]


def test_a_record_keeps_its_depth_in_a_checkpoint_and_older_checkpoints_have_none() -> None:
    seen = Seen(1, "a", depth=4)
    assert Seen.load(seen.dump()) == seen
    assert Seen.load(Seen(1, "a").dump()[:10]) == Seen(1, "a")  # type: ignore[index]
