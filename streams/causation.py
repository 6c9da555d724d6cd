"""How far a record is from what a person or another system did: one counter for everything that starts by itself. Pure.

What a trigger or a rule's action brings about is one step further than what led to it, and says so in the header `mplp_depth`
(in commands, where it becomes part of an execution, `trigger_depth` in `data`). The counter goes along through composites (the
greatest among their records), events of actions, commands, executions, their transitions and the events that they emit. Where it
has reached `limits.TRIGGER_DEPTH_MAX`, nothing more is started by itself: it goes in circles.
"""

from __future__ import annotations

from collections.abc import Iterable

from streams.topics import DEPTH_HEADER

#: A header of more digits has come a long way.
_DIGITS_MAX = 4


def depth_of(headers: Iterable[tuple[str, bytes]] | None) -> int:
    """The depth that a record's headers tell; 0 without one. What is no number counts as more than any limit."""
    for name, value in headers or ():
        if name == DEPTH_HEADER:
            return int(value) if value.isdigit() and len(value) <= _DIGITS_MAX else int(10**_DIGITS_MAX)
    return 0


def depth_headers(depth: int) -> tuple[tuple[str, bytes], ...]:
    """The header that tells a depth; none for 0."""
    return ((DEPTH_HEADER, str(depth).encode()),) if depth else ()
