"""What routes write by hand, in masses: it is what the codec and the bus would write of the same records."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from streams import limits
from streams.bus.outgoing import Outgoing, avro_long, avro_time, event_outgoing, outgoing, partition_for
from streams.bus.record_batches import RenderedBatch
from streams.bus.rendering import Rendered
from streams.causation import depth_headers
from streams.codec.avro import Codec, SchemaIds
from streams.errors import TooLarge
from streams.log.ports import Stored
from streams.masses import derived_ids, iso_of
from streams.matching.encoded import EncodedView
from streams.matching.matchers import RecordView
from streams.records import Delivery, SystemEvent, derived_id, from_micros, iso, to_micros
from streams.routing.deliveries import DeliveryWriter
from streams.routing.events import EventWriter
from streams.routing.letters import Redriven
from streams.routing.parse import parse_route
from streams.routing.plan import Plan
from streams.routing.recipes import Made, Rejected
from streams.routing.routes import active
from streams.routing.seen import Seen
from streams.routing.tasks import Task
from streams.topics import DEPTH_HEADER, ROUTED_HEADER

CODEC = Codec(SchemaIds.local())
NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
PARTITIONS = 7
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8,
)  # fmt: skip
EVENTS = st.builds(
    SystemEvent, type=TEXT.filter(bool), source=TEXT, subject=TEXT, tenant=TEXT.filter(bool), correlation_id=TEXT,
    causation_id=st.none() | st.just("cause"), data=JSON, severity=st.sampled_from(["debug", "info", "critical"]),
    time=st.datetimes(datetime(1950, 1, 1), datetime(2290, 1, 1), timezones=st.just(UTC)),
)  # fmt: skip
TRANSFORMS: list[list[dict[str, Any]]] = [
    [], [{"set": {"data.x": "1"}}], [{"set": {"subject": '""'}}], [{"map": '{"type": "made", "severity": "error"}'}],
    [{"rename": {"data": "data.inner"}}, {"set": {"time": '"2027-01-01T00:00:00Z"'}}], [{"drop": ["data", "source"]}],
]  # fmt: skip


def plan(*transforms: dict[str, Any], route_id: str = "r") -> Plan:
    document = {"id": route_id, "match": {}, "transforms": list(transforms), "destination": {"topic": "there"}}
    return Plan(active(parse_route(document), version=3))


def stored(value: bytes | None, offset: int = 17, headers: Sequence[tuple[str, bytes]] = ()) -> Stored:
    return Stored(topic="pre.from", partition=2, offset=offset, timestamp_ms=5, key=b"k", value=value, headers=headers)


def seen_of(event: SystemEvent, offset: int = 17, depth: int = 0) -> tuple[Seen, RecordView]:
    value = CODEC.encode(event)
    places = CODEC.envelope(value)
    assert places is not None
    view = EncodedView(value, places, CODEC.decode_raw, {})
    return Seen("pre.from", 2, stored(value, offset, depth_headers(depth)), 5, view), view


def parsed(written: Rendered) -> Outgoing:
    batch = MemoryRecords(RenderedBatch([written.body], 1)._build()).next_batch()
    assert batch is not None
    (record,) = batch
    return Outgoing(written.partition, record.key, record.value, sorted(record.headers))


def sort(record: Outgoing) -> Outgoing:
    return record._replace(headers=sorted(record.headers))


@given(event=EVENTS, transforms=st.sampled_from(TRANSFORMS), offset=st.integers(0, 2**40), depth=st.integers(0, 3))
def test_an_event_is_what_the_bus_would_publish(event: SystemEvent, transforms: Any, offset: int, depth: int) -> None:
    writer = EventWriter(CODEC, "r", "mplp.from/2")
    routed = (ROUTED_HEADER, f"r/mplp.from/2/{offset}".encode())
    seen, view = seen_of(event, offset, depth)
    # The same record, decoded whole, and nothing shared.
    alone = plan(*transforms).made(RecordView(CODEC.decode_raw(CODEC.encode(event))[1]), depth, {})
    for route_id in ("r", "other"):
        made_by = plan(*transforms, route_id=route_id)
        made = made_by.made(view, seen.depth, seen.known)
        if isinstance(alone, Rejected):
            assert made == alone
            continue
        assert isinstance(made, Made)
        assert isinstance(alone, Made)
        assert made is made_by.made(view, seen.depth, seen.known), "what a recipe makes is made once for all routes"
        wanted = event_outgoing(
            CODEC, alone.event(derived_id("route", route_id, event.id)), PARTITIONS, (routed, *depth_headers(depth + 1))
        )
        assert parsed(writer.write(Task(seen, made_by, made), made, PARTITIONS)) == sort(wanted)
        assert CODEC.decode(wanted.value).causation_id == event.id


def test_an_event_of_a_record_without_an_id_begins_its_own_story() -> None:
    seen, view = seen_of(SystemEvent(id="", type="t"))
    for route_id in ("r", "other"):
        made_by = plan(route_id=route_id)
        made = made_by.made(view, 0, seen.known)
        assert isinstance(made, Made)
        written = parsed(EventWriter(CODEC, route_id, "mplp.from/2").write(Task(seen, made_by, made), made, PARTITIONS))
        found: Any = CODEC.decode(written.value)
        assert (found.correlation_id, found.causation_id) == (found.id, None)
        assert (written.key, found.id) == (found.id.encode(), derived_id("route", route_id, ""))


def test_an_event_that_no_topic_takes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TOPIC_MESSAGE_BYTES_MAX", 100)
    seen, view = seen_of(SystemEvent(type="t"))
    made = plan().made(view, 0, seen.known)
    assert isinstance(made, Made)
    with pytest.raises(TooLarge) as caught:
        EventWriter(CODEC, "r", "mplp.from/2").write(Task(seen, plan(), made), made, PARTITIONS)
    assert caught.value.code == "payload.too-large"


@pytest.mark.parametrize(("error", "status"), [(None, "delivered"), (("a.b", "so"), "dead"), (("a.b", "so"), "retrying")])
@pytest.mark.parametrize("readable", [True, False])
@pytest.mark.parametrize("put_back", [True, False])
def test_a_delivery_is_one_of_the_codec(error: tuple[str, str] | None, status: Any, readable: bool, put_back: bool) -> None:
    of_route = plan()
    seen, view = seen_of(SystemEvent(id="e1", type="t", correlation_id="story", tenant="ten"))
    made = of_route.made(view, 0, seen.known)
    assert isinstance(made, Made)
    redriven = Redriven(
        letter="x.dlq/0/1", route="r", stage="deliver", topic="x", partition=0, offset=1, attempts=1, first_time="", history=b"", headers=()
    )  # fmt: skip
    task = Task(seen, of_route, made, redriven if put_back else None)
    if not readable:
        task = Task(Seen("pre.from", 2, stored(b""), 5, None), of_route, Rejected(code="c", message="m", stage="deliver"), task.redriven)
    writer = DeliveryWriter(CODEC, of_route.active, "pre.from", 2, PARTITIONS)
    written = parsed(writer.write(task, 2, status, error, 1.23456, to_micros(NOW)))
    found = CODEC.decode(written.value)
    assert isinstance(found, Delivery)
    data: dict[str, Any] = {
        "route_version": 3, "topic": "pre.from", "partition": 2, "offset": 17,
        "delivery": derived_id("route", "r", "e1") if readable else "", **({} if error is None else {"code": "a.b"}),
        **({"letter": "x.dlq/0/1"} if put_back else {}),
    }  # fmt: skip
    wanted = Delivery(
        id=found.id, type=f"delivery.{status}", source="mplp/routes/r", subject="r", time=NOW, tenant="ten" if readable else "default",
        correlation_id="story" if readable else "", causation_id="e1" if readable else None, data=data, event_id="e1" if readable else "",
        route_id="r", destination="there", attempt=2, status=status, error=None if error is None else "a.b: so", latency_ms=1.235,
    )  # fmt: skip
    assert found == wanted
    key = "e1" if readable else found.id
    by_bus = outgoing(CODEC, wanted, PARTITIONS, key=key)
    if readable:
        assert written == sort(by_bus)
    assert (written.key, written.partition, dict(written.headers)["ce_id"]) == (
        key.encode(),
        partition_for(key, PARTITIONS),
        found.id.encode(),
    )
    assert parsed(writer.write(task, 2, status, error, 9.0, to_micros(NOW) + 1)).key == written.key


def test_news_of_a_delivery_has_an_id_of_its_own_and_a_repeat_the_same() -> None:
    of_route = plan()
    ids: list[str] = []
    for _ in range(2):
        writer = DeliveryWriter(CODEC, of_route.active, "pre.from", 2, PARTITIONS)
        other = DeliveryWriter(CODEC, plan(route_id="s").active, "pre.from", 2, PARTITIONS)
        elsewhere = DeliveryWriter(CODEC, of_route.active, "pre.from", 3, PARTITIONS)
        for offset in (3, 4, 2**47):
            seen, view = seen_of(SystemEvent(id="e1", type="t"), offset)
            made = of_route.made(view, 0, seen.known)
            assert isinstance(made, Made)
            task = Task(seen, of_route, made)
            for each in (writer, other, elsewhere):
                for attempt, status in ((1, "delivered"), (2, "delivered"), (1, "retrying")):
                    ids.append(CODEC.decode(parsed(each.write(task, attempt, status, None, 0.0, 1)).value).id)
    half = len(ids) // 2
    assert len(set(ids[:half])) == half
    assert ids[:half] == ids[half:]


@given(depth=st.integers(0, 9))
def test_what_is_made_lies_one_step_deeper(depth: int) -> None:
    seen, view = seen_of(SystemEvent(type="t"), depth=depth)
    made = plan().made(view, seen.depth, seen.known)
    assert isinstance(made, Made)
    written = parsed(EventWriter(CODEC, "r", "mplp.from/2").write(Task(seen, plan(), made), made, PARTITIONS))
    assert dict(written.headers)[DEPTH_HEADER] == str(depth + 1).encode()


@given(time_us=st.integers(-(2**50), 2**53), last=TEXT)
def test_times_and_ids_are_written_as_elsewhere(time_us: int, last: str) -> None:
    assert avro_time(time_us) == avro_long(time_us)
    assert iso_of(time_us) == iso(from_micros(time_us))
    assert derived_ids("a", 1)(last) == derived_id("a", 1, last)
