"""`Verifier` against a real broker and a real ClickHouse: it says `exact` when it is, and names what is not."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from services.history.store import History
from services.history.tables import all_tables
from services.history.verify import Ask, Place, Verifier
from services.history.verify_report import Report
from streams.codec.avro import Codec, headers_of
from streams.codec.registry import connect_codec
from streams.errors import NotFound
from streams.kafka import Kafka
from streams.records import SystemEvent
from streams.settings import Settings
from streams.topics import SYSTEM_EVENTS, TRANSITIONS
from streams.topics_apply import apply_topics
from tests.integration.history.helpers import caught_up, encoded, produce, sinking
from tests.integration.history.odd import all_there, changed, events, kinds, log_with_a_zombie

pytestmark = pytest.mark.broker

EVENTS = 400


@dataclass(frozen=True, slots=True)
class Sunk:
    """Topics with everything that may lie in them, all of it in the tables."""

    kafka: Kafka
    codec: Codec
    history: History

    async def verify(self, ask: Ask | None = None) -> Report:
        return await Verifier(self.kafka, self.codec, self.history, all_there).run(ask or Ask())


@pytest.fixture(scope="module")
async def sunk(broker: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sunk]:
    settings = Settings(
        kafka_bootstrap=broker,
        topic_prefix=f"t{uuid.uuid4().hex[:8]}",
        partitions=4,
        data_dir=tmp_path_factory.mktemp("verify"),
        http_port=0,
    )
    kafka = Kafka(settings)
    await apply_topics(kafka)
    codec = await connect_codec(kafka)
    async with History(settings) as history:
        await fill(kafka, codec, history)
        yield Sunk(kafka, codec, history)
    async with kafka.admin() as admin:
        await admin.delete_topics([topic for topic in await admin.list_topics() if topic.startswith(f"{settings.topic_prefix}.")])


@pytest.fixture
async def damaged(sunk: Sunk) -> AsyncIterator[Sunk]:
    """The same, to be damaged: the tables are as before afterwards."""
    for table in all_tables():
        await changed(sunk.history, f"CREATE TABLE {table}_saved AS {table}", f"INSERT INTO {table}_saved SELECT * FROM {table}")
    yield sunk
    for table in all_tables():
        await changed(sunk.history, f"EXCHANGE TABLES {table} AND {table}_saved", f"DROP TABLE {table}_saved SYNC")


async def fill(kafka: Kafka, codec: Codec, history: History) -> None:
    """Events, repeats, garbage, a log with a zombie's void records; all of it in the tables."""
    sent = [encoded(codec, event, event.subject) for event in events(EVENTS)]
    odd = [
        (b"k", None, []),
        (b"k", b"no avro", []),
        (b"k", b"\x00\x00\x00\x09\x99foreign", []),
        (b"k", codec.encode(SystemEvent(type="t"))[:-1], headers_of(SystemEvent(type="t"))),
    ]
    await produce(kafka, SYSTEM_EVENTS, [*sent, sent[3], sent[3], *odd])
    await produce(kafka, f"{SYSTEM_EVENTS}.dlq", [(b"k", b"poison", [("mplp.errors.route", b"r")])])
    await log_with_a_zombie(kafka, codec)
    async with sinking(kafka, codec, history) as sink:
        await caught_up(sink)


class TestExact:
    async def test_everything_that_may_lie_in_a_topic(self, sunk: Sunk) -> None:
        report = await sunk.verify()
        assert (report.verdict, kinds(report)) == ("exact", [])
        said = report.to_dict()
        assert said["rows"] + said["log_records"] == said["offsets"] == said["compared"] >= EVENTS + 12
        assert said["log_records"] >= 2 + 4 + 2 + 1, "repeats, odd values, fences, the zombie's event"

    async def test_a_part_of_the_offsets(self, sunk: Sunk) -> None:
        said = (await sunk.verify(Ask(topics=(SYSTEM_EVENTS,), since=10, until=20))).to_dict()
        assert (said["verdict"], said["offsets"], said["rows"] + said["log_records"]) == ("exact", 40, 40)
        nothing = await sunk.verify(Ask(since=datetime.now(UTC) + timedelta(hours=1)))
        assert (nothing.verdict, nothing.to_dict()["offsets"]) == ("exact", 0)

    async def test_a_topic_that_is_not_kept(self, sunk: Sunk) -> None:
        with pytest.raises(NotFound, match="keeps no topic") as refused:
            await sunk.verify(Ask(topics=("mplp.control.rules",)))
        assert refused.value.code == "topic.not-kept"


class TestDiffers:
    async def test_every_kind_of_damage_is_found_where_it_is(self, damaged: Sunk) -> None:
        swap = "if(subject = 's17', replaceOne(data_text, '17', '18'), replaceOne(data_text, '18', '17'))"
        shifted = "* REPLACE (_offset + 1000000 AS _offset)"
        await changed(
            damaged.history,
            "DELETE FROM system_events WHERE subject = 's7'",
            "INSERT INTO system_events SELECT * FROM system_events WHERE subject = 's9'",
            "ALTER TABLE system_events UPDATE data_text = '{}' WHERE subject = 's11'",
            "ALTER TABLE system_events UPDATE severity = 'error' WHERE subject = 's13'",
            f"ALTER TABLE system_events UPDATE data_text = {swap} WHERE subject IN ('s17', 's18')",
            f"INSERT INTO system_events SELECT {shifted} FROM system_events WHERE subject = 's15'",
            "ALTER TABLE workflow_transitions UPDATE source = 's' WHERE sequence = 2",
            "ALTER TABLE log_records UPDATE kind = 'repeat' WHERE kind = 'void'",
        )
        report = await damaged.verify()
        found = Counter((kind, topic) for kind, topic, _ in kinds(report))
        assert report.verdict == "differs"
        assert found == {
            ("missing", SYSTEM_EVENTS): 1, ("duplicate", SYSTEM_EVENTS): 1, ("changed", SYSTEM_EVENTS): 4, ("stray", SYSTEM_EVENTS): 1,
            ("changed", TRANSITIONS): 2,
        }  # fmt: skip
        quick = await damaged.verify(Ask(quick=True))
        assert Counter(kind for kind, _, _ in kinds(quick)) == {"missing": 1, "duplicate": 1, "stray": 1}

    async def test_a_table_that_is_empty(self, damaged: Sunk) -> None:
        await changed(damaged.history, "TRUNCATE TABLE workflow_transitions")
        assert kinds(await damaged.verify()) == [("missing", TRANSITIONS, 3)]


async def test_what_the_sink_has_not_reached_is_behind(sunk: Sunk) -> None:
    async def reached(ends: Mapping[Place, int], timeout: float) -> Mapping[Place, int]:
        return {place: end - (place[0] == sunk.kafka.names.physical(SYSTEM_EVENTS)) for place, end in ends.items()}

    report = await Verifier(sunk.kafka, sunk.codec, sunk.history, reached).run(Ask())
    assert (report.verdict, report.to_dict()["pending"], report.exact) == ("behind", 4, False)
