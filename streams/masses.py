"""Ids and times of records that come in masses: what many have alike is made once. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import lru_cache

from streams.records import EPOCH, ID_NAMESPACE, derived_id


def derived_ids(*parts: object) -> Callable[[str], str]:
    """Gives `derived_id(*parts, last)` for many a `last`: what goes before it is hashed once."""
    begun = hashlib.sha1(ID_NAMESPACE.bytes + "".join(f"{part}/" for part in parts).encode(), usedforsecurity=False)

    def derived(last: str) -> str:
        found = begun.copy()
        found.update(last.encode())
        digits = found.hexdigest()
        return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANTS[digits[16]]}{digits[17:20]}-{digits[20:32]}"

    return derived


def many_derived_ids(*parts: object) -> Callable[[Sequence[bytes]], list[bytes]]:
    """As `derived_ids`, of many a `last` at a time, and as bytes: a digit of all ids is put in its place by one operation."""
    begun = hashlib.sha1(ID_NAMESPACE.bytes + "".join(f"{part}/" for part in parts).encode(), usedforsecurity=False).copy

    def derived(last: Sequence[bytes]) -> list[bytes]:
        hashes = []
        for each in last:
            found = begun()
            found.update(each)
            hashes.append(found.digest())
        digits = b"".join(hashes).hex().encode()
        ids = bytearray(_ID * len(hashes))
        for place, digit in _DIGITS:
            ids[place::_ID_SIZE] = digits[digit::_HASH_SIZE]
        ids[_VARIANT_AT::_ID_SIZE] = ids[_VARIANT_AT::_ID_SIZE].translate(_VARIANT_OF)
        written = bytes(ids)
        return [written[begin : begin + _ID_SIZE] for begin in range(0, len(written), _ID_SIZE)]

    return derived


#: A UUIDv5 whose digits are to be told; of each its place and which digit of the hash it is. What the version says stays.
_ID = b"00000000-0000-5000-0000-000000000000"
_ID_SIZE, _VERSION_AT, _VARIANT_AT, _HASH_SIZE = len(_ID), 14, 19, 40
_DIGITS = [
    (place, digit) for digit, place in enumerate([place for place, sign in enumerate(_ID) if sign != b"-"[0]]) if place != _VERSION_AT
]
_VARIANT_OF = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)
#: The digit of a UUID that says its variant, by what a hash has there.
_VARIANTS = {f"{number:x}": f"{number & 3 | 8:x}" for number in range(16)}


def numbered_ids(*parts: object) -> Callable[[int], str]:
    """Ids of the members of a sequence, by their numbers from 0 (48 bits): UUIDv8, `parts` hashed into all but the number."""
    digits = derived_id(*parts)
    begin = f"{digits[:14]}8{digits[15:24]}"
    return lambda number: f"{begin}{number:012x}"


def iso_of(time_us: int) -> str:
    """`iso` of the instant `time_us` microseconds after the epoch; of many that lie close together."""
    second, micros = divmod(time_us, 1_000_000)
    return f"{_second(second)}.{micros:06d}Z"


@lru_cache(maxsize=4096)
def _second(second: int) -> str:
    return (EPOCH + timedelta(seconds=second)).isoformat(timespec="seconds")[:-6]
