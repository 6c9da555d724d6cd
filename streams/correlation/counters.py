"""What the engine counts per rule. Pure; part of checkpoints, so that the figures are those of the version, whoever owns the partition."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from streams.records import Json

#: Late records of which the ids are kept.
LATE_IDS_MAX = 5


@dataclass(slots=True)
class Counters:
    """What happened to the matches of one version of a rule."""

    matched: int = 0
    late: int = 0
    duplicates: int = 0
    evicted: int = 0  #: groups
    overflowed: int = 0  #: records that groups no longer keep because there are too many
    composites: int = 0  #: said, each counted once
    revised: int = 0  #: composites said again or taken back
    last_us: int | None = None  #: time of the record that matched last
    late_ids: list[str] = field(default_factory=list)  #: the newest ones
    late_by_us: int = 0  #: how far behind the watermark the last late record was

    def late_came(self, record_id: str, behind_us: int) -> None:
        """Counts a late record."""
        self.late += 1
        self.late_by_us = behind_us
        self.late_ids.append(record_id)
        del self.late_ids[:-LATE_IDS_MAX]

    def dump(self) -> Json:
        """As JSON, for checkpoints; `Counters(**…)` takes it back."""
        return asdict(self)
