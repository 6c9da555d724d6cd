"""A record as the routes see whose business it is: what several of them need of it is read and made once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from streams.causation import depth_of
from streams.log.ports import Stored
from streams.matching.matchers import RecordView
from streams.routing.recipes import Outcome, Recipe


class Carried(Protocol):
    """A record as a client gives it."""

    @property
    def offset(self) -> int:
        """Its offset."""

    @property
    def key(self) -> bytes | None:
        """Its key."""

    @property
    def value(self) -> bytes | None:
        """Its value."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Its headers."""


class Seen:
    """See the module. It lies where the route reads; of what was put back that is `<topic>.retry`."""

    __slots__ = (
        "_raw", "_record", "depth", "id", "known", "offset", "partition", "story", "tenant", "timestamp_ms", "together", "told", "topic"
    )  # fmt: skip

    def __init__(self, topic: str, partition: int, record: Carried, timestamp_ms: int, view: RecordView | None) -> None:
        """`topic`: name on the broker; `view`: None if the record cannot be read. Raises `InvalidInput` if it cannot be read after all."""
        self.topic = topic
        self.partition = partition
        self.timestamp_ms = timestamp_ms  #: Kafka's
        self._record = record
        self._raw: Stored | None = record if type(record) is Stored else None
        self.offset = record.offset
        self.depth = depth_of(record.headers)
        self.known: dict[Recipe, Outcome] = {}  #: what recipes made of it
        self.told: Any = None  #: what all deliveries say alike
        self.together: Any = None  #: and what they do of this record with those behind it
        self.id = self.story = ""
        self.tenant = "default"
        if view is not None:
            self.id, _, _, self.tenant, story, _, _ = view.essentials()
            self.story = story or self.id  #: the story that it belongs to

    @property
    def raw(self) -> Stored:
        """The record with its place."""
        if self._raw is None:
            record = self._record
            self._raw = Stored(
                topic=self.topic, partition=self.partition, offset=self.offset, timestamp_ms=self.timestamp_ms, key=record.key,
                value=record.value, headers=record.headers,
            )  # fmt: skip
        return self._raw

    @property
    def key(self) -> bytes | None:
        """The record's key."""
        return self._record.key

    @property
    def bytes(self) -> int:
        """Of the value."""
        return len(self._record.value or b"")
