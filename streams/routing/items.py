"""What stands in line: records, why they have failed so far, and the keys under which they wait. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Work = TypeVar("Work")


@dataclass(frozen=True, slots=True)
class Item(Generic[Work]):
    """A record in memory."""

    offset: int
    key: bytes
    timestamp_ms: int  #: Kafka's
    size: int  #: about how much memory it takes, bytes
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The attempts at a record so far, all of which failed."""

    attempts: int
    first_ms: int  #: when the first was begun, Unix time
    due_ms: int  #: when the next is due
    code: str
    message: str
    generation: int = 0  #: answers that the destination gave, if it tells repeated requests from new ones


@dataclass(slots=True)
class Unsettled(Generic[Work]):
    """A key that is not settled."""

    queue: deque[Item[Work]] = field(default_factory=deque)  #: the oldest, without a hole
    busy: bool = False  #: the first is under way
    failure: Failure | None = None  #: of the first
    tail_from: int | None = None  #: from this offset on its records are only in the log
    tail: int = 0  #: about how many
    last: int = -1  #: the last of them; no later record of the key is left in the log
    window: int = 1 << 30  #: how many a sweep may bring; few of a key that has failed

    @property
    def offset(self) -> int:
        """The first offset that is not settled."""
        if self.queue:
            return self.queue[0].offset
        assert self.tail_from is not None
        return self.tail_from

    @property
    def end(self) -> int:
        """The last of its offsets."""
        return self.last if self.tail_from is not None else self.queue[-1].offset


def own_key(offset: int) -> bytes:
    """The key of a record that waits for no other; no key of Kafka is confused with it (see `line_key`)."""
    return b"#%d" % offset


def line_key(key: bytes | None, offset: int, *, ordered: bool) -> bytes:
    """The key under which a record stands in line."""
    return own_key(offset) if key is None or not ordered else b"=" + key
