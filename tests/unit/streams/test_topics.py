"""Where keys lie: as every other client of Kafka says."""

from __future__ import annotations

from aiokafka.partitioner import murmur2 as theirs
from hypothesis import example, given
from hypothesis import strategies as st

from streams.topics import BY_NAME, TopicNames, letters_topic, murmur2, partition_of


@given(key=st.binary(max_size=80), partitions=st.integers(1, 100))
@example(key=b"\xff" * 37, partitions=7)
def test_a_key_lies_where_the_default_partitioner_puts_it(key: bytes, partitions: int) -> None:
    assert murmur2(key) == theirs(key) & 0xFFFFFFFF
    assert partition_of(key, partitions) == (theirs(key) & 0x7FFFFFFF) % partitions


def test_what_begins_with_the_prefix_of_another_installation_is_its_own() -> None:
    ours, free = {"acme.system.events", "acme.control.rules", "acme.orders.dlq"}, {"orders", "orders.dlq", "elsewhere.orders.dlq"}
    theirs = {"other.system.events", "other.control.rules", "other.orders.dlq", "other.orders", "mplp.system.events.dlq"}
    assert TopicNames("acme").own(ours | free | theirs) == ours | free


def test_what_is_buried_of_any_topic_lies_as_the_catalogue_says() -> None:
    for suffix in (".dlq", ".retry"):
        assert letters_topic("orders" + suffix).config() == BY_NAME["mplp.system.events" + suffix].config()
