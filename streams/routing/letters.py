"""Dead letters: what their headers say, which of them are wanted, and what is put back. Pure.

A letter lies in `<topic>.dlq` with the key and value of the record that could not be handled, and its headers behind which those about
the error stand. What is put back lies in `<topic>.retry`, with key, value and headers as they were, and headers of its own that say
whose it is (`mplp.redrive.…`): only the route or group that gave the record up gets it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from streams.errors import InvalidInput
from streams.log.ports import Stored
from streams.records import Json
from streams.topics import DEAD_LETTER_SUFFIX, TopicNames

ERRORS = "__streams.errors."
OURS = "mplp.errors."
REDRIVE = "mplp.redrive."
HISTORY = OURS + "history"
#: Stages of a route; other stages belong to a group of handlers (`handler`, `decode`), the match stage (`match`) or a rule (`action`).
ROUTE_STAGES = frozenset({"route", "filter", "transform", "deliver"})
#: Failures that a letter remembers beside its own.
HISTORY_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter as people get it."""

    place: tuple[str, int, int]  #: logical topic of dead letters, partition, offset
    topic: str  #: where the record was (logical), also partition and offset
    partition: int
    offset: int
    route: str  #: route, group of handlers, or rule/index; empty: nobody in particular
    stage: str
    code: str
    message: str
    attempts: int
    first_time: str  #: RFC 3339
    time_ms: int  #: when it became a letter
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]  #: the record's own
    history: tuple[Json, ...] = ()  #: earlier times that it was a letter, oldest first

    @property
    def id(self) -> str:
        """Its own place: `topic/partition/offset`."""
        topic, partition, offset = self.place
        return f"{topic}/{partition}/{offset}"

    @property
    def subject(self) -> tuple[str, str, int, int, int]:
        """What tells it from all others but a repeat of itself, which a crash may leave behind."""
        return self.route, self.topic, self.partition, self.offset, len(self.history)

    def to_dict(self) -> dict[str, Any]:
        """As `mplp dlq list --json` gives it."""
        return {
            "id": self.id, "route": self.route, "topic": self.topic, "partition": self.partition, "offset": self.offset,
            "key": None if self.key is None else self.key.decode(errors="replace"), "code": self.code, "message": self.message,
            "attempts": self.attempts, "first_time": self.first_time, "stage": self.stage,
        }  # fmt: skip


def letter_of(stored: Stored, names: TopicNames) -> Letter:
    """The letter of a record of a topic of dead letters."""
    topic = names.logical(stored.topic)
    about: dict[str, str] = {}
    own: list[tuple[str, bytes]] = []
    for name, content in stored.headers:
        if name.startswith((ERRORS, OURS)):
            about[name] = content.decode(errors="replace")  # the last counts: a letter may carry those of another product
        elif not name.startswith(REDRIVE):
            own.append((name, content))
    code = about.get(ERRORS + "exception", "")
    return Letter(
        place=(topic, stored.partition, stored.offset),
        topic=names.logical(about.get(ERRORS + "topic", "")) or topic.removesuffix(DEAD_LETTER_SUFFIX),
        partition=_number(about.get(ERRORS + "partition"), stored.partition),
        offset=_number(about.get(ERRORS + "offset"), stored.offset),
        route=about.get(OURS + "route", ""),
        stage=about.get(OURS + "stage", ""),
        code=code,
        message=about.get(ERRORS + "message", "").removeprefix(f"{code}: "),
        attempts=_number(about.get(OURS + "attempts"), 1),
        first_time=about.get(OURS + "first_time", ""),
        time_ms=stored.timestamp_ms,
        key=stored.key,
        value=stored.value,
        headers=tuple(own),
        history=_history(about.get(HISTORY)),
    )


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isascii() and text.lstrip("-").isdigit() else default


def _history(text: str | None) -> tuple[Json, ...]:
    try:
        found = orjson.loads(text) if text else []
    except ValueError:
        return ()
    return tuple(found) if isinstance(found, list) else ()


def redrive_headers(letter: Letter, *, redrive: str, who: str, at: str, edited: bool) -> list[tuple[str, bytes]]:
    """The record's own headers, and what says that it is put back, whose it is, and what became of it before."""
    past = {
        "code": letter.code, "message": letter.message[:500], "attempts": letter.attempts, "letter": letter.id, "redrive": redrive,
        "who": who, "time": at, "edited": edited,
    }  # fmt: skip
    history = [*letter.history, past][-HISTORY_MAX:]
    values = {
        "id": redrive, "letter": letter.id, "route": letter.route, "stage": letter.stage, "topic": letter.topic,
        "partition": str(letter.partition), "offset": str(letter.offset), "attempts": str(letter.attempts), "first_time": letter.first_time,
        "edited": "true" if edited else "false",
    }  # fmt: skip
    ours = [(REDRIVE + name, text.encode(errors="replace")) for name, text in values.items()]
    return [*letter.headers, *ours, (REDRIVE + "history", orjson.dumps(history))]


def purge_headers(letter: Letter, *, purge: str) -> list[tuple[str, bytes]]:
    """Of a record without a value that says that a letter is no longer wanted."""
    return [(REDRIVE + "purged", letter.id.encode()), (REDRIVE + "id", purge.encode())]


@dataclass(frozen=True, slots=True, kw_only=True)
class Redriven:
    """What a record that was put back says of itself."""

    letter: str  #: id of the letter
    route: str
    stage: str
    topic: str  #: where it was first (logical)
    partition: int
    offset: int
    attempts: int  #: so far
    first_time: str
    history: bytes
    headers: tuple[tuple[str, bytes], ...]  #: the record's own

    @property
    def for_route(self) -> bool:
        """Whether a route gets it; else a group of handlers does."""
        return self.stage in ROUTE_STAGES


def redriven_of(headers: Sequence[tuple[str, bytes]]) -> Redriven | None:
    """What the headers of a record of `<topic>.retry` say; None: it is none that was put back."""
    about = {name.removeprefix(REDRIVE): content for name, content in headers if name.startswith(REDRIVE)}
    if "letter" not in about:
        return None

    def text(name: str) -> str:
        return about.get(name, b"").decode(errors="replace")

    return Redriven(
        letter=text("letter"), route=text("route"), stage=text("stage"), topic=text("topic"), partition=_number(text("partition"), 0),
        offset=_number(text("offset"), 0), attempts=_number(text("attempts"), 0), first_time=text("first_time"),
        history=about.get("history", b"[]"), headers=tuple((name, content) for name, content in headers if not name.startswith(REDRIVE)),
    )  # fmt: skip


def place_of(letter_id: str) -> tuple[str, int, int]:
    """Topic of dead letters, partition and offset of a letter. Raises `InvalidInput` (`letter.id-invalid`)."""
    topic, _, rest = letter_id.partition("/")
    partition, _, offset = rest.partition("/")
    numbers = all(text.isascii() and text.isdigit() and len(text) < 20 for text in (partition, offset))
    if not topic.endswith(DEAD_LETTER_SUFFIX) or not numbers:
        raise InvalidInput("letter.id-invalid", f"{letter_id[:200]!r} is no id of a dead letter: it is topic/partition/offset.")
    return topic, int(partition), int(offset)


def resolved_by(headers: Iterable[tuple[str, bytes]]) -> tuple[str, bool] | None:
    """The letter that a record of `<topic>.retry` settles, and whether it was purged rather than put back; None: none."""
    for name, content in headers:
        if name == REDRIVE + "letter":
            return content.decode(errors="replace"), False
        if name == REDRIVE + "purged":
            return content.decode(errors="replace"), True
    return None
