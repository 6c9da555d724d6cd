"""Bodies of records (`streams.bus.rendering`) in columns: what many have alike is made once, and a batch joins all of it once. Pure.

A body in one piece is made, then copied into its batch, and each costs a call. In columns a record only takes its place in some lists,
which Python fills at the speed of C. To everybody else they are a sequence of bodies.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import overload


class Bodies(Sequence[bytes]):
    """See the module. Columns are never changed: others may have the same ones."""

    __slots__ = ("columns", "sizes")

    def __init__(self, sizes: list[int], columns: list[list[bytes]]) -> None:
        """`sizes`: bytes of each body; `columns`: of each part of a body a list of all bodies' parts."""
        self.sizes = sizes
        self.columns = columns

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> Bodies: ...
    def __getitem__(self, place: int | slice) -> bytes | Bodies:
        if isinstance(place, slice):
            return Bodies(self.sizes[place], [column[place] for column in self.columns])
        return b"".join([column[place] for column in self.columns])

    def picked(self, rows: Sequence[int]) -> Bodies:
        """Some of them."""
        return Bodies([self.sizes[row] for row in rows], [[column[row] for row in rows] for column in self.columns])


def bodies_of(bodies: Sequence[bytes]) -> Bodies:
    """What may be bodies in one piece, as columns."""
    return bodies if isinstance(bodies, Bodies) else Bodies(list(map(len, bodies)), [list(bodies)])


def joined(pieces: Sequence[Bodies]) -> Bodies:
    """All of them, one piece behind the other."""
    if len(pieces) == 1:
        return pieces[0]
    if len({len(piece.columns) for piece in pieces}) > 1:
        return bodies_of([body for piece in pieces for body in piece])
    sizes = list(chain.from_iterable([piece.sizes for piece in pieces]))
    return Bodies(sizes, [list(chain.from_iterable(column)) for column in zip(*[piece.columns for piece in pieces], strict=True)])
