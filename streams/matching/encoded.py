"""A record as it was fetched, seen by matchers: of its bytes no more is decoded than somebody asks for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from streams.codec.partial import Places
from streams.errors import InvalidInput
from streams.matching.matchers import RecordView
from streams.matching.paths import MISSING
from streams.records import from_micros

#: Text of the envelope → where its begin and end stand in `Places`.
_AT = {"id": 0, "type": 2, "source": 4, "subject": 6, "tenant": 9, "correlation_id": 11, "causation_id": 13, "data": 15}
#: Those that are never null, nor anything but texts.
_TEXTS = frozenset(_AT) - {"causation_id", "data"}
#: What `draft` gives without decoding the record.
_DRAFTED = frozenset(_AT) | {"time", "severity"}
#: What comes behind the envelope of most events: a severity, and nothing of a log. Few different ones, so they are remembered.
_REST_BYTES_MAX, _RESTS_MAX = 8, 256


class EncodedView(RecordView):
    """See the module. Everything that reads a field raises `InvalidInput` (`avro.invalid`) if the bytes there are none."""

    __slots__ = ("_decode", "_drafted", "_essentials", "_places", "_severities", "_text", "_value")

    def __init__(
        self, value: bytes, places: Places, decode: Callable[[bytes], tuple[str, dict[str, Any]]],
        severities: dict[bytes, str] | None = None,
    ) -> None:  # fmt: skip
        """`places` of the envelope in `value`; `decode` gives the name and all fields of the whole record.

        `severities`: what `severity` has found, to be kept for the next record that the same `decode` reads.
        """
        self._value = value
        self._places = places
        self._decode = decode
        self._severities = severities
        self._plain = self._values = None
        self._data = MISSING
        self._essentials: tuple[str, str, str, str, str, str, int] | None = None
        self._drafted: dict[str, Any] | None = None
        self._text: str | None = None
        try:
            self.type = value[places[2] : places[3]].decode()
        except UnicodeDecodeError as error:
            raise InvalidInput("avro.invalid", f"type is no text: {error}") from error
        self.time_us = places[8]

    @property
    def plain(self) -> Mapping[str, Any]:
        """See `RecordView.plain`."""
        if self._plain is None:
            self._plain = self._decode(self._value)[1]
        return self._plain

    def text(self, name: str) -> str:
        """See `RecordView.text`."""
        if name == "data" and self._text is not None:
            return self._text
        at = _AT[name]
        try:
            text = self._value[self._places[at] : self._places[at + 1]].decode()
        except UnicodeDecodeError as error:
            raise InvalidInput("avro.invalid", f"{name} is no text: {error}") from error
        if name == "data":
            self._text = text
        return text

    @property
    def payload(self) -> bytes:
        """See `RecordView.payload`."""
        _ = self.data
        return self._value[self._places[15] : self._places[16]]

    @property
    def severity(self) -> str:
        """See `RecordView.severity`."""
        known, rest = self._severities, self._value[self._places[16] :]
        if known is None or len(rest) > _REST_BYTES_MAX:
            return super().severity
        mark = self._value[:5] + rest  # the schema, and the rest
        found = known.get(mark)
        if found is None:
            found = super().severity
            if len(known) < _RESTS_MAX:
                known[mark] = found
        return found

    def draft(self, roots: Collection[str]) -> Mapping[str, Any]:
        """See `RecordView.draft`."""
        if not _DRAFTED.issuperset(roots):
            return self.values
        if self._drafted is None:
            id, type, source, tenant, correlation_id, _, _ = self.essentials()
            self._drafted = {
                "id": id, "type": type, "source": source, "subject": self.text("subject"), "tenant": tenant,
                "correlation_id": correlation_id, "causation_id": self.text("causation_id") if self._places[13] else None,
                "data": self.data, "time": from_micros(self.time_us), "severity": self.severity,
            }  # fmt: skip
        return self._drafted

    def essentials(self) -> tuple[str, str, str, str, str, str, int]:
        """See `RecordView.essentials`."""
        if self._essentials is not None:
            return self._essentials
        value, at, text = self._value, self._places, self._text
        try:
            self._essentials = (
                value[at[0] : at[1]].decode(), self.type, value[at[4] : at[5]].decode(), value[at[9] : at[10]].decode() or "default",
                value[at[11] : at[12]].decode(), value[at[15] : at[16]].decode() if text is None else text, at[15],
            )  # fmt: skip
        except UnicodeDecodeError as error:
            raise InvalidInput("avro.invalid", f"A field of the envelope is no text: {error}") from error
        return self._essentials

    def root(self, name: str) -> Any:
        """See `RecordView.root`."""
        return self.text(name) if name in _TEXTS else super().root(name)
