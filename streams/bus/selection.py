"""Which records a subscriber wants: globs over type and source, exact fields, CEL. Pure.

Cheap tests come first and need no payload; CEL sees the record's fields as variables, `data` parsed and `time` as a
timestamp. An expression that has no value on a record (a missing key) does not match it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from streams.matching.expressions import ExpressionFailed, compiled
from streams.matching.globs import glob_matches
from streams.records import Record, to_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a record must be. None: no condition. Times are of the record (`time`), not Kafka's."""

    type: str | None = None  #: glob
    source: str | None = None  #: glob
    subject: str | None = None
    correlation_id: str | None = None
    since: datetime | None = None  #: at this time or later
    until: datetime | None = None  #: before this time
    where: str | None = None  #: CEL

    def check(self) -> None:
        """Raises `InvalidInput` (`expression.invalid`) for a `where` that does not compile."""
        if self.where is not None:
            compiled(self.where, numbers_alike=True)

    def wants_plain(self, plain: Mapping[str, Any]) -> bool:
        """Whether the record's fields, as `Codec.decode_raw` gives them, satisfy all but `where`."""
        return (
            (self.type is None or glob_matches(self.type, plain["type"]))
            and (self.source is None or glob_matches(self.source, plain["source"]))
            and (self.subject is None or plain["subject"] == self.subject)
            and (self.correlation_id is None or plain["correlation_id"] == self.correlation_id)
            and (self.since is None or plain["time"] >= to_micros(self.since))
            and (self.until is None or plain["time"] < to_micros(self.until))
        )

    def wants(self, record: Record) -> bool:
        """Whether `where` holds for a record that `wants_plain` let through."""
        if self.where is None:
            return True
        try:
            return compiled(self.where, numbers_alike=True).holds(values_of(record))
        except ExpressionFailed:
            return False


#: Every record.
EVERYTHING = Selection()


def values_of(record: Record) -> Mapping[str, Any]:
    """The record's fields as CEL variables."""
    return {field.name: getattr(record, field.name) for field in fields(record)}
