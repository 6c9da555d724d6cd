"""Which subject a record's schema is registered under (pure).

A topic with one record type: `<topic>-value`, as Confluent's serialisers do by default. A topic with several: the record's full name
(`mplp.ModuleMessage`), as their `RecordNameStrategy` does.
"""

from __future__ import annotations

from collections.abc import Iterable

from streams.codec.avro import full_name, local_schemas
from streams.records import Record
from streams.topics import CATALOGUE, Topic, TopicNames


def subject_of(topic: Topic, record: type[Record], names: TopicNames) -> str:
    """The subject of a record type on a topic; topic names are those on the broker."""
    return f"{names.physical(topic.name)}-value" if len(topic.records) == 1 else full_name(local_schemas()[record.__name__])


def registrations(names: TopicNames, catalogue: Iterable[Topic] = CATALOGUE) -> list[tuple[str, str]]:
    """Every (subject, record name) of the catalogue, without repetition, in the catalogue's order."""
    pairs = [(subject_of(topic, record, names), record.__name__) for topic in catalogue for record in topic.records]
    return list(dict.fromkeys(pairs))
