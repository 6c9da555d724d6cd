"""A record as it was fetched, seen by matchers: of its bytes no more is decoded than somebody asks for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streams.codec.partial import Places
from streams.errors import InvalidInput
from streams.matching.matchers import RecordView
from streams.matching.paths import MISSING

#: Text of the envelope → where its begin and end stand in `Places`.
_AT = {"id": 0, "type": 2, "source": 4, "subject": 6, "tenant": 9, "correlation_id": 11, "causation_id": 13, "data": 15}
#: Those that are never null, nor anything but texts.
_TEXTS = frozenset(_AT) - {"causation_id", "data"}


class EncodedView(RecordView):
    """See the module. Everything that reads a field raises `InvalidInput` (`avro.invalid`) if the bytes there are none."""

    __slots__ = ("_decode", "_places", "_text", "_value")

    def __init__(self, value: bytes, places: Places, decode: Callable[[bytes], tuple[str, dict[str, Any]]]) -> None:
        """`places` of the envelope in `value`; `decode` gives the name and all fields of the whole record."""
        self._value = value
        self._places = places
        self._decode = decode
        self._plain = self._values = None
        self._data = MISSING
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

    def essentials(self) -> tuple[str, str, str, str, str, str, int]:
        """See `RecordView.essentials`."""
        value, at, text = self._value, self._places, self._text
        try:
            return (
                value[at[0] : at[1]].decode(), self.type, value[at[4] : at[5]].decode(), value[at[9] : at[10]].decode() or "default",
                value[at[11] : at[12]].decode(), value[at[15] : at[16]].decode() if text is None else text, at[15],
            )  # fmt: skip
        except UnicodeDecodeError as error:
            raise InvalidInput("avro.invalid", f"A field of the envelope is no text: {error}") from error

    def root(self, name: str) -> Any:
        """See `RecordView.root`."""
        return self.text(name) if name in _TEXTS else super().root(name)
