"""What of one source partition a route has not settled yet, and in which order it may be attempted. Pure.

Theory of operation. A route *looks at* every record of the partition once, in the order of the log; `position` is the next offset. A record
that is its business joins the line of its key. Of each key one record is under way at a time, the oldest; the keys know nothing of each
other. When an attempt fails, the key is *parked* until its next attempt is due: the record that failed stays, if there is much room; what
comes behind it is left where it lies, in the log, and only the offset at which that begins is kept (`tail_from`). A key that comes to the
end of what is in memory is *hungry*: when one of these has nothing left and there is room, a *sweep* reads the log again, from the least
offset that a hungry key waits for to the position, and gives every key its next records. What comes meanwhile is left to the next.

So memory holds a bounded number of records (`RECORDS_MAX`, and half as many that sweeps have brought: neither takes the other's room), and
of each unsettled key a few numbers, whether one record waits behind it or a million. There are at most `KEYS_MAX` such keys, of
`KEY_BYTES_MAX` bytes in all; where there is no room for one more, the line does not look further: the log waits.

What a successor needs is `dump`: the position, and of each unsettled key the offset from which on it is unsettled. Everything before the
position that is not so named is settled. Settled is a fact that stays one; so whoever takes over from an older dump, or from one that a
process wrote which no longer owns the partition, attempts some records again, in order, and leaves none out.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from streams.records import Json

Work = TypeVar("Work")

#: Records that a line holds in memory, and of one key.
RECORDS_MAX = 4000
KEY_RECORDS_MAX = 1000
#: Bytes of them; one record may be larger.
BYTES_MAX = 8 * 1024 * 1024
#: Keys that are not settled, and bytes of them: a state is one message (`dump`).
KEYS_MAX = 10_000
KEY_BYTES_MAX = 2 * 1024 * 1024
#: A key that is longer than most, bytes.
_LONG_KEY = 8192
#: Characters of what is kept of why keys failed, in a state; each has its share.
MESSAGES_CHARACTERS_MAX = 500_000
#: Attempts under way.
UNDER_WAY_MAX = 64


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
class _Key(Generic[Work]):
    """A key that is not settled."""

    queue: deque[Item[Work]] = field(default_factory=deque)  #: the oldest, without a hole
    busy: bool = False  #: the first is under way
    failure: Failure | None = None  #: of the first
    tail_from: int | None = None  #: from this offset on its records are only in the log
    tail: int = 0  #: about how many
    passed: bool = False  #: the sweep under way has gone past a record that it did not take
    later_from: int | None = None  #: the first of its records that were offered and left in the log since that sweep began

    @property
    def offset(self) -> int:
        """The first offset that is not settled."""
        if self.queue:
            return self.queue[0].offset
        assert self.tail_from is not None
        return self.tail_from


class Line(Generic[Work]):
    """See the module. A key of a record without one, or of a route without order, is its own offset (`own_key`)."""

    def __init__(self, position: int, state: Json = None) -> None:
        """As `dump` left it; without a state everything from `position` on is to be looked at."""
        self.position = position if state is None else int(state["position"])
        self.under_way = 0
        self._keys: dict[bytes, _Key[Work]] = {}
        self._ready: deque[bytes] = deque()
        self._due: list[tuple[int, bytes]] = []  # heap; an entry that is not the key's own failure any more is skipped
        self._hungry: set[bytes] = set()
        self._records = self._bytes = self._key_bytes = 0
        self._swept, self._swept_bytes = set[int](), 0  # those of the records that sweeps have brought
        self._sweeping, self._swept_to, self._sweep_end = False, 0, 0
        for text, entry in ({} if state is None else state["keys"]).items():
            self._restore(bytes.fromhex(text), entry)

    def _restore(self, key: bytes, entry: Json) -> None:
        offset, tail, *failed = entry
        found = self._add(key, _Key(tail_from=int(offset), tail=int(tail)))
        if failed:
            attempts, first_ms, due_ms, code, message, generation = failed
            found.failure = Failure(attempts=attempts, first_ms=first_ms, due_ms=due_ms, code=code, message=message, generation=generation)
            heapq.heappush(self._due, (due_ms, key))
        else:
            self._hungry.add(key)

    def dump(self) -> Json:
        """As JSON, for checkpoints."""
        keys: dict[str, Json] = {}
        most = MESSAGES_CHARACTERS_MAX // max(1, len(self._keys))
        for key, found in self._keys.items():
            entry: list[Json] = [found.offset, len(found.queue) + found.tail]
            if (failure := found.failure) is not None:
                entry += [failure.attempts, failure.first_ms, failure.due_ms, failure.code, failure.message[:most], failure.generation]
            keys[key.hex()] = entry
        return {"position": self.position, "keys": keys}

    # --- looking at records ---

    def skip_to(self, offset: int) -> None:
        """What lies before the offset is not the route's business, or was offered."""
        self.position = max(self.position, offset)

    def offer(self, item: Item[Work]) -> bool:
        """The next record that is the route's business. False: there is no room, and the line stays where it is."""
        found = self._keys.get(item.key)
        if found is None:
            if not self._has_room_for_key(len(item.key)) or not self._has_room(item.size):
                return False
            found = self._add(item.key, _Key())
            self._ready.append(item.key)
            self._hold(found, item)
        elif found.tail_from is not None:
            found.tail += 1
            found.later_from = item.offset if found.later_from is None else found.later_from
        elif found.failure is not None or len(found.queue) >= KEY_RECORDS_MAX or not self._has_room(item.size):
            found.tail_from, found.tail, found.later_from = item.offset, 1, item.offset
        else:
            self._hold(found, item)
        self.position = item.offset + 1
        return True

    @property
    def has_much_room(self) -> bool:
        """Whether it is worth while to look further."""
        return self._has_room_for_key(_LONG_KEY) and self._is_within(
            1 / 2, self._records - len(self._swept), self._bytes - self._swept_bytes
        )

    @staticmethod
    def _is_within(part: float, records: int, size: int) -> bool:
        return records <= part * RECORDS_MAX and size <= part * BYTES_MAX

    def would_leave(self, key: bytes, size: int) -> bool:
        """Whether a record offered now would be left in the log, or refused, only because others have not been attempted yet.

        Reading the log twice costs more than waiting a little.
        """
        found = self._keys.get(key)
        if found is None:
            return not self._has_room(size)
        return found.failure is None and found.tail_from is None and (len(found.queue) >= KEY_RECORDS_MAX or not self._has_room(size))

    def _has_room(self, size: int) -> bool:
        records, held = self._records - len(self._swept), self._bytes - self._swept_bytes
        return not records or (records < RECORDS_MAX and held + size <= BYTES_MAX)

    def _has_room_for_key(self, size: int) -> bool:
        return not self._keys or (len(self._keys) < KEYS_MAX and self._key_bytes + size < KEY_BYTES_MAX)

    def _add(self, key: bytes, found: _Key[Work]) -> _Key[Work]:
        self._keys[key] = found
        self._key_bytes += len(key)
        return found

    def _remove(self, key: bytes) -> None:
        del self._keys[key]
        self._key_bytes -= len(key)

    def _hold(self, found: _Key[Work], item: Item[Work]) -> None:
        found.queue.append(item)
        self._records += 1
        self._bytes += item.size

    def _let_go(self, item: Item[Work]) -> None:
        self._records -= 1
        self._bytes -= item.size
        if item.offset in self._swept:
            self._swept.remove(item.offset)
            self._swept_bytes -= item.size

    # --- attempts ---

    def begin(self, now_ms: int, most: int = UNDER_WAY_MAX) -> tuple[Item[Work], Failure | None] | None:
        """A record to attempt now, and its failure so far; None: there is none, or so many are under way."""
        self._wake(now_ms)
        if self.under_way >= most or not self._ready:
            return None
        found = self._keys[self._ready.popleft()]
        found.busy = True
        self.under_way += 1
        return found.queue[0], found.failure

    def next_due_ms(self) -> int | None:
        """When the next parked key is due; None: none is parked."""
        while self._due and self._is_stale(*self._due[0]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def settle(self, key: bytes) -> Item[Work]:
        """The record under way is delivered, or among the dead letters."""
        found = self._keys[key]
        found.busy, found.failure = False, None
        self.under_way -= 1
        item = found.queue.popleft()
        self._let_go(item)
        if found.queue:
            self._ready.append(key)
        if found.tail_from is not None:
            if 4 * len(found.queue) <= KEY_RECORDS_MAX:
                self._starve(key, found)
        elif not found.queue:
            self._remove(key)
        return item

    def fail(self, key: bytes, failure: Failure) -> None:
        """The attempt under way has failed: the key is parked until the next is due."""
        found = self._keys[key]
        found.busy, found.failure = False, failure
        self.under_way -= 1
        # Who waits must not take the room of those who could go on: then it is read again when it is due.
        self._spill(found, 1 if self._is_within(1 / 8, self._records, self._bytes) else 0)
        self._hungry.discard(key)
        heapq.heappush(self._due, (failure.due_ms, key))

    def release(self, key: bytes) -> None:
        """The attempt under way was not made after all: it can begin at any time."""
        found = self._keys[key]
        found.busy = False
        self.under_way -= 1
        self._ready.appendleft(key)

    def spill(self) -> None:
        """Lets go of every record that is not under way: it is to be read anew, as another version of the route sees it."""
        self._ready.clear()
        self._due.clear()
        for key, found in self._keys.items():
            self._spill(found, 1 if found.busy else 0)
            if found.failure is not None and not found.busy:
                self._due.append((found.failure.due_ms, key))
                self._hungry.discard(key)  # it is woken once more, once
            elif not found.queue:
                self._starve(key, found)
        heapq.heapify(self._due)

    def _spill(self, found: _Key[Work], kept: int) -> None:
        while len(found.queue) > kept:
            item = found.queue.pop()
            self._let_go(item)
            found.tail_from = item.offset
            found.tail += 1
            if self._sweeping and item.offset >= self._sweep_end:
                found.later_from = item.offset  # the sweep does not come to it
            # What a sweep gave and is let go lies behind the sweep: it gives this key nothing more.
            found.passed = self._sweeping

    def _wake(self, now_ms: int) -> None:
        while (due_ms := self.next_due_ms()) is not None and due_ms <= now_ms:
            _, key = heapq.heappop(self._due)
            found = self._keys[key]
            if found.queue:
                self._ready.append(key)
            else:
                self._starve(key, found)

    def _starve(self, key: bytes, found: _Key[Work]) -> None:
        """The key waits for a sweep; if one has gone past what it waits for already, for the next."""
        assert found.tail_from is not None
        if key not in self._hungry:
            self._hungry.add(key)
            found.passed = self._sweeping and found.tail_from < self._swept_to

    def _is_stale(self, due_ms: int, key: bytes) -> bool:
        found = self._keys.get(key)
        return found is None or found.failure is None or found.failure.due_ms != due_ms or found.busy

    # --- sweeps ---

    def sweep_from(self) -> int | None:
        """Where a sweep begins; None: no key lacks a record, or there is no room for many: each sweep costs, however little it brings."""
        if not self._is_within(1 / 4, len(self._swept), self._swept_bytes) or all(self._keys[key].queue for key in self._hungry):
            return None
        return min((place for key in self._hungry if (place := self._keys[key].tail_from) is not None), default=None)

    def begin_sweep(self) -> int:
        """A sweep begins at `sweep_from`. Who becomes hungry for something before that, from now on, waits for the next.

        Returns where it ends: at the present position. If it followed the position, it would not end while records come.
        """
        self._sweeping, self._swept_to, self._sweep_end = True, self.sweep_from() or 0, self.position
        for found in self._keys.values():
            found.passed, found.later_from = False, None
        return self._sweep_end

    def wants(self, offset: int, key: bytes) -> bool:
        """Whether a record that a sweep comes by may be one that a hungry key waits for; to be asked for every record."""
        self._swept_to = offset + 1
        found = self._keys.get(key)
        return found is not None and key in self._hungry and not found.passed and found.tail_from is not None and offset >= found.tail_from

    def refill(self, item: Item[Work]) -> bool:
        """A record that is wanted and the route's business. Whether it was taken; else the sweep has nothing more for this key."""
        found = self._keys[item.key]
        # One that is larger than what is left of the room is taken all the same, if its key has no other.
        room = self._is_within(1 / 2, len(self._swept), self._swept_bytes + (item.size if found.queue else 0))
        if len(found.queue) >= KEY_RECORDS_MAX or not room:
            found.passed = True
            return False
        found.tail_from, found.tail = item.offset + 1, max(0, found.tail - 1)
        self._hold(found, item)
        self._swept.add(item.offset)
        self._swept_bytes += item.size
        if len(found.queue) == 1:
            self._ready.append(item.key)
        return True

    def sated(self) -> bool:
        """Whether the sweep may end before it has come to its end: it has nothing more for any hungry key."""
        return all(self._keys[key].passed for key in self._hungry)

    def end_sweep(self, offset: int) -> None:
        """The sweep has come to this offset; at its end hungry keys have in memory all that they have, but for what came meanwhile."""
        self._sweeping = False
        fed, self._hungry = self._hungry, set()
        for key in fed:
            found = self._keys[key]
            swept = offset >= self._sweep_end
            if swept and not found.passed and found.later_from is not None:
                found.tail_from = found.later_from
                if not found.queue:
                    self._hungry.add(key)
            elif swept and not found.passed:
                found.tail_from, found.tail = None, 0
                if not found.queue:
                    self._remove(key)  # what it waited for is no longer the route's business, or gone from the log
            elif not found.queue:
                self._hungry.add(key)  # the sweep was interrupted, or too early for it

    # --- figures ---

    def __len__(self) -> int:
        """Keys that are not settled."""
        return len(self._keys)

    @property
    def settled(self) -> bool:
        """Whether everything before the position is."""
        return not self._keys

    def waiting(self) -> int:
        """About how many records are not settled."""
        return self._records + sum(found.tail for found in self._keys.values())

    def oldest(self) -> int:
        """The least offset that is not settled."""
        return min((found.offset for found in self._keys.values()), default=self.position)

    def parked(self) -> Iterator[tuple[bytes, int, int, Failure]]:
        """Parked keys: key, offset, records that wait (about), failure."""
        for key, found in self._keys.items():
            if found.failure is not None:
                yield key, found.offset, len(found.queue) + found.tail, found.failure

    def hungry(self) -> Collection[bytes]:
        """Keys that wait for a sweep."""
        return self._hungry


def own_key(offset: int) -> bytes:
    """The key of a record that waits for no other; no key of Kafka is confused with it (see `line_key`)."""
    return b"#%d" % offset


def line_key(key: bytes | None, offset: int, *, ordered: bool) -> bytes:
    """The key under which a record stands in line."""
    return own_key(offset) if key is None or not ordered else b"=" + key
