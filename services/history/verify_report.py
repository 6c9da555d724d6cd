"""What a verification says. Pure.

Verdicts: *exact*, *differs* (with places), *behind* (nothing differs, but the sink has not reached the topics' ends of the start in time).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from services.history.verify_sums import Range

#: Places that a report names; of the others it says how many there are.
PLACES_MAX = 100


class Kind(StrEnum):
    """How a place differs."""

    MISSING = "missing"  #: the topic has it, the tables do not
    DUPLICATE = "duplicate"  #: an offset has more than one row
    STRAY = "stray"  #: a row of an offset that the topic does not have
    CHANGED = "changed"  #: a row says something else than the record, or is in another table


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Neighbouring offsets of one partition that differ in the same way."""

    kind: Kind
    topic: str  #: logical name
    partition: int
    at: Range
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "kind": self.kind.value, "topic": self.topic, "partition": self.partition, "first": self.at.first, "end": self.at.end,
            "offsets": self.at.offsets, "detail": self.detail,
        }  # fmt: skip


@dataclass(slots=True, kw_only=True)
class PartitionReport:
    """One partition."""

    topic: str  #: logical name
    partition: int
    kept: Range  #: offsets that the history has to account for: from its first row, or the topic's first offset, to the end
    topic_first: int  #: first offset that the topic still has
    rows: int = 0  #: in the tables of records
    log_records: int = 0  #: rows of `log_records`
    compared: int = 0  #: offsets whose content was compared with the topic
    pending: int = 0  #: offsets at the end that the sink has not reached in time
    differences: list[Difference] = field(default_factory=list)  #: at most `PLACES_MAX`
    left_off: int = 0  #: differences, or ranges in which something differs, that are not named
    expired: int = 0  #: offsets beyond the history's retention: their rows may have been dropped
    erased: int = 0  #: offsets whose payloads were erased: compared as rows without them
    not_decoded: int = 0  #: records that are kept as bytes in `log_records`, and that could be read today
    gone: int = 0  #: offsets that the topic had when they were sunk, and has no more (compaction, retention during the verification)

    def differs(self, kind: Kind, at: Range, detail: str = "") -> None:
        """Notes a difference; one that goes on where the last of its kind ended is the same."""
        last = self.differences[-1] if self.differences else None
        if last is not None and (last.kind, last.detail, last.at.end) == (kind, detail, at.first):
            self.differences[-1] = replace(last, at=Range(first=last.at.first, end=at.end))
            return
        if len(self.differences) >= PLACES_MAX:
            self.left_off += 1
            return
        self.differences.append(Difference(kind=kind, topic=self.topic, partition=self.partition, at=at, detail=detail))

    @property
    def exact(self) -> bool:
        """Whether every offset is accounted for, once, with the content that it has in the topic."""
        return not self.differences and not self.left_off and not self.pending

    def counts(self) -> dict[str, int]:
        """Offsets that differ, by kind; of the named differences."""
        return {kind.value: sum(each.at.offsets for each in self.differences if each.kind is kind) for kind in Kind}

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "partition": self.partition, "first": self.kept.first, "end": self.kept.end, "topic_first": self.topic_first,
            "offsets": self.kept.offsets, "rows": self.rows, "log_records": self.log_records, "compared": self.compared,
            "pending": self.pending, "gone": self.gone, "erased": self.erased, "expired": self.expired,
            "not_decoded": self.not_decoded, **self.counts(), "exact": self.exact,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A partition that the history has, and the broker has not (any more)."""

    topic: str
    partition: int
    kept: Range
    rows: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"topic": self.topic, "partition": self.partition, "first": self.kept.first, "end": self.kept.end, "rows": self.rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The whole verification."""

    partitions: Sequence[PartitionReport]
    absent: Sequence[Absent] = ()
    quick: bool = False
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """`exact`, `differs` or `behind`."""
        if any(part.differences or part.left_off for part in self.partitions):
            return "differs"
        return "behind" if any(part.pending for part in self.partitions) else "exact"

    @property
    def exact(self) -> bool:
        """Whether all partitions are."""
        return self.verdict == "exact"

    def to_dict(self) -> dict[str, Any]:
        """As JSON: totals, topics with their partitions, places."""
        places = [difference for part in self.partitions for difference in part.differences]
        topics: dict[str, list[PartitionReport]] = {}
        for part in self.partitions:
            topics.setdefault(part.topic, []).append(part)
        return {
            "verdict": self.verdict, "exact": self.exact, "quick": self.quick, "seconds": round(self.seconds, 3),
            **_totals(self.partitions),
            "topics": [_topic(topic, parts) for topic, parts in topics.items()],
            "differences": [place.to_dict() for place in places[:PLACES_MAX]],
            "differences_left_off": max(0, len(places) - PLACES_MAX) + sum(part.left_off for part in self.partitions),
            "absent": [each.to_dict() for each in self.absent],
        }  # fmt: skip


def _topic(topic: str, parts: Sequence[PartitionReport]) -> dict[str, Any]:
    exact = all(part.exact for part in parts)
    return {"topic": topic, **_totals(parts), "exact": exact, "partitions": [part.to_dict() for part in parts]}


def _totals(parts: Iterable[PartitionReport]) -> dict[str, int]:
    parts = list(parts)
    return {
        "offsets": sum(part.kept.offsets for part in parts), "rows": sum(part.rows for part in parts),
        "log_records": sum(part.log_records for part in parts), "compared": sum(part.compared for part in parts),
        "pending": sum(part.pending for part in parts), "erased": sum(part.erased for part in parts),
        "expired": sum(part.expired for part in parts),
    }  # fmt: skip
