"""Which dead letters are meant: by route, code, key, topic, time, id and CEL. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streams.codec.avro import Codec
from streams.errors import InvalidInput
from streams.matching.expressions import ExpressionFailed, compiled
from streams.matching.matchers import RecordView
from streams.records import to_micros
from streams.routing.letters import Letter, place_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterSelection:
    """What a letter must be; None: no condition. CEL sees the record's fields and `letter` (as listed, with `time`)."""

    route: str | None = None
    code: str | None = None
    key: str | None = None
    topic: str | None = None  #: logical name, where the record was
    since: datetime | None = None  #: a letter at this time or later
    until: datetime | None = None  #: a letter before this time
    where: str | None = None
    ids: frozenset[str] | None = None

    def check(self) -> None:
        """Raises `InvalidInput` (`expression.invalid`, `letter.id-invalid`)."""
        if self.where is not None:
            compiled(self.where, numbers_alike=True)
        for letter_id in self.ids or ():
            place_of(letter_id)

    @property
    def everything(self) -> bool:
        """Whether there is no condition at all."""
        return self == LetterSelection()

    def to_dict(self) -> dict[str, Any]:
        """The conditions as JSON, for the event that tells who did what."""
        given: Mapping[str, Any] = {
            "route": self.route, "code": self.code, "key": self.key, "topic": self.topic, "since": self.since, "until": self.until,
            "where": self.where, "ids": None if self.ids is None else sorted(self.ids)[:100],
        }  # fmt: skip
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in given.items() if value is not None}

    def wants(self, letter: Letter, codec: Codec) -> bool:
        """Whether the letter is meant. An expression that has no value for it does not mean it."""
        shown = letter.to_dict()
        wanted = (("route", self.route), ("code", self.code), ("key", self.key), ("topic", self.topic))
        if any(value is not None and shown[name] != value for name, value in wanted):
            return False
        if self.ids is not None and letter.id not in self.ids:
            return False
        time_us = letter.time_ms * 1000
        if (self.since is not None and time_us < to_micros(self.since)) or (self.until is not None and time_us >= to_micros(self.until)):
            return False
        return self.where is None or self._where_holds(letter, shown, codec)

    def _where_holds(self, letter: Letter, shown: Mapping[str, Any], codec: Codec) -> bool:
        expression = compiled(self.where or "true", numbers_alike=True)
        values: dict[str, Any] = {"letter": dict(shown)}
        with suppress(InvalidInput, ExpressionFailed, KeyError):
            # What cannot be read can still be meant by what is known of the letter.
            values |= RecordView(codec.decode_raw(letter.value)[1]).values
        try:
            return expression.holds(values)
        except ExpressionFailed:
            return False
