"""Batches of rendered records: what aiokafka's parser reads in them, and what its builder writes."""

from __future__ import annotations

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from streams.bus.bodies import Bodies, bodies_of, joined
from streams.bus.outgoing import Outgoing
from streams.bus.record_batches import RenderedBatch, batches_of
from streams.bus.rendering import rendered

HEADERS = st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=300)), max_size=4)
RECORDS = st.lists(
    st.builds(Outgoing, st.just(0), st.none() | st.binary(max_size=200), st.none() | st.binary(max_size=20_000), HEADERS), min_size=1,
    max_size=30,
)  # fmt: skip


def bodies(records: list[Outgoing]) -> list[bytes]:
    return [rendered(record).body for record in records]


@given(records=RECORDS, producer=st.integers(0, 2**62), epoch=st.integers(0, 2**15 - 1), sequence=st.integers(0, 2**31 - 1))
def test_a_batch_has_the_bytes_that_the_client_would_write(records: list[Outgoing], producer: int, epoch: int, sequence: int) -> None:
    theirs = DefaultRecordBatchBuilder(
        2, 0, is_transactional=0, producer_id=producer, producer_epoch=epoch, base_sequence=sequence, batch_size=1 << 24
    )
    for number, record in enumerate(records):
        theirs.append(number, 1_700_000_000_000, record.key, record.value, record.headers)
    ours = RenderedBatch(bodies(records), 1_700_000_000_000)
    ours._set_producer_state(producer, epoch, sequence)
    assert (ours.record_count(), ours.closed(), ours.append()) == (len(records), True, None)
    assert ours._build() == bytes(theirs.build())


@given(records=RECORDS, bytes_max=st.integers(1, 50_000))
def test_records_are_cut_into_batches_in_their_order(records: list[Outgoing], bytes_max: int) -> None:
    batches = [bytes(batch._build()) for batch in batches_of(bodies(records), 5, bytes_max)]
    found = []
    for batch in batches:
        parsed = MemoryRecords(batch).next_batch()
        assert parsed is not None
        assert parsed.validate_crc()
        inside = list(parsed)
        assert len(inside) == 1 or len(batch) <= bytes_max + 61
        found += [(record.key, record.value, record.headers, record.timestamp) for record in inside]
    assert found == [(record.key, record.value, record.headers, 5) for record in records]


def test_a_batch_may_have_thousands_of_records() -> None:
    many = [Outgoing(0, b"%d" % number, None, []) for number in range(5000)]
    (batch,) = batches_of(bodies(many), 1, 1 << 24)
    parsed = MemoryRecords(batch._build()).next_batch()
    assert parsed is not None
    assert [(record.offset, record.key) for record in parsed] == [(number, b"%d" % number) for number in range(5000)]


@given(pieces=st.lists(st.lists(st.lists(st.binary(max_size=200), min_size=3, max_size=3), max_size=5), min_size=1, max_size=4))
def test_a_batch_of_columns_is_that_of_whole_bodies(pieces: list[list[list[bytes]]]) -> None:
    columns = [
        Bodies([sum(map(len, parts)) for parts in piece], [[parts[number] for parts in piece] for number in range(3)]) for piece in pieces
    ]
    whole = [b"".join(parts) for piece in pieces for parts in piece]
    found = joined(columns)
    assert list(found) == whole == list(joined([*columns, bodies_of([])]))
    assert list(found[1:3]) == whole[1:3]
    assert list(found.picked(range(0, len(whole), 2))) == whole[::2]
    for bytes_max in (1, 300, 1 << 20):
        ours = [batch._build() for batch in batches_of(found, 5, bytes_max)]
        assert ours == [batch._build() for batch in batches_of(whole, 5, bytes_max)]
        assert len(ours) == 1 or not whole or bytes_max < 1 << 20
