"""The order in which a partition's inputs are decided: by time; at one moment answers first, then commands, then timers. Pure.

Sources are queues in which time never goes back. After a takeover a source that has not been read to the end seen at the
takeover, and has nothing at hand, holds everything up: an older record may still come. So timers and inputs are merged by
time, whatever the order in which fetches return.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from streams import topics
from streams.log.ports import Stored
from streams.records import InputPosition, Record

#: Order at one moment; whatever else comes counts as a command.
RANK_ANSWER, RANK_COMMAND = 0, 1
RANKS: Mapping[str, int] = {topics.RESPONSES: RANK_ANSWER, topics.MESSAGES: RANK_ANSWER, topics.REQUESTS: RANK_ANSWER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """Something that waits to be decided: a decoded record, or `fault` (code, sentence) if it cannot be decoded."""

    lane: str  #: name of the machine that decides it
    time_us: int
    record: Record | None
    position: InputPosition | None
    stored: Stored | None = None
    fault: tuple[str, str] | None = None
    depth: int = 0  #: see `Received`


@dataclass(slots=True)
class Source:
    """A queue of inputs. `behind` says that records below the end seen at the takeover are still to be fetched."""

    rank: int
    behind: bool = False
    queue: deque[Arrived] = field(default_factory=deque)


class Inputs:
    """All sources of one partition."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}

    def add(self, name: str, rank: int, *, behind: bool = False) -> Source:
        """A new source."""
        source = self.sources[name] = Source(rank=rank, behind=behind)
        return source

    @property
    def waiting(self) -> int:
        """How many inputs are at hand."""
        return sum(len(source.queue) for source in self.sources.values())

    @property
    def caught_up(self) -> bool:
        """Whether no source is behind."""
        return not any(source.behind for source in self.sources.values())

    def choose(self, timer_due_us: int | None, now_us: int) -> Source | int | None:
        """The source whose head comes next, or the due time of the timer that does, or None: nothing can be decided now."""
        best: Source | None = None
        best_key = (0, 0)
        for source in self.sources.values():
            if source.queue:
                key = (source.queue[0].time_us, source.rank)
                if best is None or key < best_key:
                    best, best_key = source, key
            elif source.behind:
                return None
        if timer_due_us is not None and timer_due_us <= now_us:
            if best is not None and timer_due_us < best_key[0]:
                return timer_due_us
            if best is None and self.caught_up:
                return timer_due_us
        return best
