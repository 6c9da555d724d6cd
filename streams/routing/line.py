"""What of one source partition a route has not settled yet, and in which order it may be attempted. Pure.

Theory of operation. A route *looks at* every record of the partition once, in the order of the log; `position` is the next offset. A record
that is its business joins the line of its key. Of each key one record is under way at a time, the oldest; the keys know nothing of each
other. When an attempt fails, the key is *parked* until its next attempt is due: the record that failed stays, if there is much room; what
comes behind it is left where it lies, in the log, and only the offsets at which that begins and ends are kept (`tail_from`, `last`). A key
that comes to the end of what is in memory is *hungry*: when one of these has nothing left and there is room, a *sweep* reads the log again
and gives every hungry key its next records (`streams.routing.sweep`). What comes meanwhile is left to the next. A key that has failed gets
one record: it may fail again. With each success it may have one more, up to its share of the room: who is well again is read together.

So memory holds a bounded number of records (`RECORDS_MAX`, and half as many that sweeps have brought: neither takes the other's room), and
of each unsettled key a few numbers, whether one record waits behind it or a million. There are at most `KEYS_MAX` such keys, of
`KEY_BYTES_MAX` bytes in all; where there is no room for one more, the line does not look further: the log waits.

What a successor needs is `dump`: the position, and of each unsettled key the offset from which on it is unsettled. Everything before the
position that is not so named is settled. Settled is a fact that stays one; so whoever takes over from an older dump, or from one that a
process wrote which no longer owns the partition, attempts some records again, in order, and leaves none out.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Generic

from streams.records import Json
from streams.routing.bounds import (
    BYTES_MAX,
    KEY_BYTES_MAX,
    KEY_RECORDS_MAX,
    KEYS_MAX,
    LONG_KEY,
    MESSAGES_CHARACTERS_MAX,
    RECORDS_MAX,
    SHARE_LEAST,
    UNDER_WAY_MAX,
)
from streams.routing.items import Failure, Item, Unsettled, Work
from streams.routing.sweep import Sweep
from streams.routing.turns import Turns


class Line(Generic[Work]):
    """See the module. A key of a record without one, or of a route without order, is its own offset (`own_key`)."""

    def __init__(self, position: int, state: Json = None) -> None:
        """As `dump` left it; without a state everything from `position` on is to be looked at."""
        self.position = position if state is None else int(state["position"])
        self._turns = Turns()
        self._keys: dict[bytes, Unsettled[Work]] = {}
        self._due: list[tuple[int, bytes]] = []  # heap; an entry that is not the key's own failure any more is skipped
        self._hungry: set[bytes] = set()
        self._starving: set[bytes] = set()  # those of them that have nothing left
        self._probing: set[bytes] = set()  # those of these that have failed
        self._records = self._bytes = self._key_bytes = 0
        self._swept, self._swept_bytes = set[int](), 0  # those of the records that sweeps have brought
        self._sweep: Sweep | None = None
        keys: dict[str, Json] = {} if state is None else state["keys"]
        ends: Sequence[int] = [self.position - 1] * len(keys) if state is None or "ends" not in state else state["ends"]
        for (text, entry), end in zip(keys.items(), ends, strict=True):
            self._restore(bytes.fromhex(text), entry, end)

    def _restore(self, key: bytes, entry: Json, end: int) -> None:
        offset, tail, *failed = entry
        found = self._add(key, Unsettled(tail_from=int(offset), tail=int(tail), last=max(end, int(offset))))
        if failed:
            attempts, first_ms, due_ms, code, message, generation = failed
            found.failure = Failure(attempts=attempts, first_ms=first_ms, due_ms=due_ms, code=code, message=message, generation=generation)
            found.window = 1
            heapq.heappush(self._due, (due_ms, key))
        else:
            self._starve(key, found)

    def dump(self) -> Json:
        """As JSON, for checkpoints. `ends`: the last offset of each key, in the order of `keys`."""
        keys: dict[str, Json] = {}
        most = MESSAGES_CHARACTERS_MAX // max(1, len(self._keys))
        for key, found in self._keys.items():
            entry: list[Json] = [found.offset, len(found.queue) + found.tail]
            if (failure := found.failure) is not None:
                entry += [failure.attempts, failure.first_ms, failure.due_ms, failure.code, failure.message[:most], failure.generation]
            keys[key.hex()] = entry
        return {"position": self.position, "keys": keys, "ends": [found.end for found in self._keys.values()]}

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
            found = self._add(item.key, Unsettled())
            self._hold(found, item)
            self._make_ready(item.key, found)
        elif found.tail_from is not None:
            found.tail, found.last = found.tail + 1, item.offset
        elif found.failure is not None or len(found.queue) >= KEY_RECORDS_MAX or not self._has_room(item.size):
            found.tail_from, found.tail, found.last = item.offset, 1, item.offset
        else:
            self._hold(found, item)
        self.position = item.offset + 1
        return True

    @property
    def has_much_room(self) -> bool:
        """Whether it is worth while to look further."""
        return self._has_room_for_key(LONG_KEY) and self._is_within(
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

    def _add(self, key: bytes, found: Unsettled[Work]) -> Unsettled[Work]:
        self._keys[key] = found
        self._key_bytes += len(key)
        return found

    def _remove(self, key: bytes) -> None:
        del self._keys[key]
        self._key_bytes -= len(key)

    def _hold(self, found: Unsettled[Work], item: Item[Work]) -> None:
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

    def begin(self, now_ms: int, most: int = UNDER_WAY_MAX, fresh_most: int = 0) -> tuple[Item[Work], Failure | None] | None:
        """A record to attempt now, and its failure so far; None: there is none, or so many are under way (see `Turns.begin`)."""
        self._wake(now_ms)
        key = self._turns.begin(most, fresh_most)
        if key is None:
            return None
        found = self._keys[key]
        found.busy = True
        return found.queue[0], found.failure

    @property
    def under_way(self) -> int:
        """Attempts that have begun and not ended."""
        return self._turns.under_way

    def is_ready(self, now_ms: int, *, again: bool) -> bool:
        """Whether a record could be attempted now; without `again` only one that comes for the first time counts."""
        due_ms = self.next_due_ms() if again else None
        return self._turns.has_ready(again=again) or (due_ms is not None and due_ms <= now_ms)

    def waits_since_ms(self) -> int | None:
        """Since when those could have been attempted whose turn is next: when they arrived, or were due again; None: none waits."""
        heads = [self._keys[key] for key in self._turns.next()]
        return min((found.queue[0].timestamp_ms if found.failure is None else found.failure.due_ms for found in heads), default=None)

    def next_due_ms(self) -> int | None:
        """When the next parked key is due; None: none is parked."""
        while self._due and self._is_stale(*self._due[0]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def _make_ready(self, key: bytes, found: Unsettled[Work]) -> None:
        self._turns.ready(key, again=found.failure is not None or found.queue[0].offset in self._swept)

    def settle(self, key: bytes) -> Item[Work]:
        """The record under way is delivered, or among the dead letters."""
        found = self._keys[key]
        self._turns.end(key)
        found.busy, found.failure = False, None
        found.window += 1
        item = found.queue.popleft()
        self._let_go(item)
        if found.queue:
            self._make_ready(key, found)
        if found.tail_from is not None:
            if 4 * len(found.queue) <= min(found.window, KEY_RECORDS_MAX):
                self._starve(key, found)
        elif not found.queue:
            self._remove(key)
        return item

    def fail(self, key: bytes, failure: Failure) -> None:
        """The attempt under way has failed: the key is parked until the next is due."""
        found = self._keys[key]
        self._turns.end(key)
        found.busy, found.failure, found.window = False, failure, 1
        # Who waits must not take the room of those who could go on: then it is read again when it is due.
        self._spill(found, 1 if self._is_within(1 / 8, self._records, self._bytes) else 0)
        self._sate(key)
        heapq.heappush(self._due, (failure.due_ms, key))

    def spill(self, due_ms: int | None = None) -> None:
        """Lets go of every record that is not under way: it is to be read anew, as another version of the route sees it.

        What has failed is due then at the latest, if `due_ms` is given.
        """
        self._turns.clear()
        self._due.clear()
        if self._sweep is not None:
            self._sweep.clear()  # what it has gone past is to be seen anew
        for key, found in self._keys.items():
            self._spill(found, 1 if found.busy else 0)
            if found.failure is not None and not found.busy:
                if due_ms is not None and due_ms < found.failure.due_ms:
                    found.failure = replace(found.failure, due_ms=due_ms)
                self._due.append((found.failure.due_ms, key))
                self._sate(key)  # it is woken once more, once
            elif not found.queue:
                self._starve(key, found)
        heapq.heapify(self._due)

    def _spill(self, found: Unsettled[Work], kept: int) -> None:
        while len(found.queue) > kept:
            item = found.queue.pop()
            self._let_go(item)
            found.last = item.offset if found.tail_from is None else found.last
            found.tail_from = item.offset
            found.tail += 1
            if self._sweep is not None:
                self._sweep.drop(item.key)  # what it gave and is let go lies behind it

    def _wake(self, now_ms: int) -> None:
        while (due_ms := self.next_due_ms()) is not None and due_ms <= now_ms:
            _, key = heapq.heappop(self._due)
            found = self._keys[key]
            if found.queue:
                self._make_ready(key, found)
            else:
                self._starve(key, found)

    def _starve(self, key: bytes, found: Unsettled[Work]) -> None:
        """The key waits for a sweep; if one has gone past what it waits for already, for the next."""
        assert found.tail_from is not None
        if not found.queue:
            self._starving.add(key)
            if found.failure is not None:
                self._probing.add(key)
        if key not in self._hungry:
            self._hungry.add(key)
            if self._sweep is not None:
                self._sweep.add(key, found.tail_from, found.last)

    def _sate(self, key: bytes) -> None:
        """The key waits for no sweep."""
        self._hungry.discard(key)
        self._starving.discard(key)
        self._probing.discard(key)
        if self._sweep is not None:
            self._sweep.drop(key)

    def _is_stale(self, due_ms: int, key: bytes) -> bool:
        found = self._keys.get(key)
        return found is None or found.failure is None or found.failure.due_ms != due_ms or found.busy

    # --- sweeps ---

    def sweep_from(self) -> int | None:
        """Where a sweep begins; None: no key lacks a record, or there is no room for many: each sweep costs, however little it brings."""
        if not self._starving or not self._is_within(1 / 4, len(self._swept), self._swept_bytes):
            return None
        return min(place for key in self._hungry if (place := self._keys[key].tail_from) is not None)

    @property
    def is_idle(self) -> bool:
        """Whether keys that are well again lack records, and hardly any that came out is left to attempt."""
        return len(self._starving) > len(self._probing) and len(self._swept) <= UNDER_WAY_MAX

    def begin_sweep(self) -> int:
        """A sweep begins at `sweep_from`. Who becomes hungry for something that it has gone past waits for the next.

        Returns where it ends: at the present position. If it followed the position, it would not end while records come.
        """
        # Also those have their share that are not well yet: few keys with much each would go one by one, while many wait for room.
        self._sweep = Sweep(self.position, max(SHARE_LEAST, RECORDS_MAX // 2 // max(1, len(self._keys))))
        for key in self._hungry:
            found = self._keys[key]
            assert found.tail_from is not None
            self._sweep.add(key, found.tail_from, found.last)
        return self._sweep.end

    def sweep_next(self) -> int | None:
        """Where the sweep reads on: where it is, or further; None: it ends."""
        room = self._is_within(1 / 2, len(self._swept), self._swept_bytes)
        return self._sweep.next() if self._sweep is not None and room else None

    def wants(self, offset: int, key: bytes) -> bool:
        """Whether a record that a sweep comes by is one that a hungry key waits for; to be asked for each that is read, in order."""
        return self._sweep is not None and self._sweep.wants(offset, key)

    def refill(self, item: Item[Work]) -> bool:
        """A record that is wanted and the route's business. Whether it was taken; else the sweep has nothing more for this key."""
        assert self._sweep is not None
        self._sweep.swept(item.offset + 1)
        found = self._keys[item.key]
        most = min(found.window, self._sweep.share, KEY_RECORDS_MAX)
        # One that is larger than what is left of the room is taken all the same, if its key has no other.
        room = self._is_within(1 / 2, len(self._swept), self._swept_bytes + (item.size if found.queue else 0))
        if len(found.queue) >= most or not room:
            self._sweep.drop(item.key)
            return False
        found.tail_from, found.tail = item.offset + 1, max(0, found.tail - 1)
        self._hold(found, item)
        self._swept.add(item.offset)
        self._swept_bytes += item.size
        self._starving.discard(item.key)
        self._probing.discard(item.key)
        if len(found.queue) == 1:
            self._make_ready(item.key, found)
        if item.offset >= found.last:
            found.tail_from, found.tail = None, 0
        if found.tail_from is None or len(found.queue) >= most:
            self._sate(item.key)
        return True

    def swept(self, offset: int) -> None:
        """The sweep was shown all that lies before the offset."""
        if self._sweep is not None:
            self._sweep.swept(offset)

    def end_sweep(self) -> None:
        """The sweep is over, or interrupted: who was in it needs nothing any more that it has gone past."""
        assert self._sweep is not None
        sweep, self._sweep = self._sweep, None
        for key in sweep.keys:
            found = self._keys[key]
            assert found.tail_from is not None
            found.tail_from = max(found.tail_from, sweep.place)
            if found.tail_from > found.last:
                found.tail_from, found.tail = None, 0
                self._sate(key)
                if not found.queue:
                    self._remove(key)  # what it waited for is no longer the route's business, or gone from the log

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
