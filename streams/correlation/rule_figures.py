"""The figures of rules as workers tell them on `mplp.internal.workers`, and how a reader puts them together. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from streams.correlation.tallies import Tally, merged
from streams.records import Heartbeat, Json

#: How often workers tell, seconds.
INTERVAL_S = 2.0
#: Figures that were told longer ago than this come from a worker that is gone.
FRESH_S = 30.0
#: The place of what a match stage counts; the other places are partitions of the matches topic.
MATCHING = "matching"

_PART = "/rules/"
_RULES_PER_RECORD = 500


def told(worker: str, places: Mapping[str, Mapping[str, Json]]) -> Iterator[tuple[str, Json]]:
    """(key, data) of the records that tell the figures of all places (place → rule → figures)."""
    rules = sorted({rule_id for by_rule in places.values() for rule_id in by_rule})
    for number, first in enumerate(range(0, max(len(rules), 1), _RULES_PER_RECORD)):
        some = set(rules[first : first + _RULES_PER_RECORD])
        part = {place: {rule_id: by_rule[rule_id] for rule_id in by_rule if rule_id in some} for place, by_rule in places.items()}
        yield f"{worker}{_PART}{number}", part


def is_figures(beat: Heartbeat) -> bool:
    """Whether a record of the workers' topic tells figures of rules; the others tell that a process lives."""
    return _PART in beat.process


class Reported:
    """What all workers have told. Of a partition that has moved the newest word counts."""

    def __init__(self) -> None:
        self._matching: dict[str, tuple[float, Mapping[str, Json]]] = {}  # key → (when, rule → figures)
        self._partitions: dict[str, tuple[float, str, Mapping[str, Mapping[str, Json]]]] = {}

    def take(self, beat: Heartbeat) -> None:
        """The next record of the workers' topic."""
        if not is_figures(beat) or not isinstance(beat.data, dict):
            return
        at = beat.time.timestamp()
        worker = beat.process.partition(_PART)[0]
        self._matching[beat.process] = (at, beat.data.get(MATCHING, {}))
        for place, by_rule in beat.data.items():
            if place == MATCHING:
                continue
            known = self._partitions.get(place)
            # The parts of one telling come one after the other; another worker's word replaces all of them.
            parts = dict(known[2]) if known is not None and known[1] == worker else {}
            self._partitions[place] = (at, worker, {**parts, beat.process: by_rule})

    def tallies(self, now_s: float) -> dict[str, Tally]:
        """Rule → its figures, of what was told lately (`now_s`: Unix time)."""
        since = now_s - FRESH_S
        matching = [by_rule for at, by_rule in self._matching.values() if at >= since]
        partitions = [by_rule for at, _, parts in self._partitions.values() if at >= since for by_rule in parts.values()]
        return merged([*matching, *partitions])
