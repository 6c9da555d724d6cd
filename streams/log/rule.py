"""The reader's rule: which records of a log count. Pure; every reader of a log goes through it.

Walking a log partition in order: a fence counts only if its epoch is higher than the current one; it then raises the
current epoch. An event of a lower epoch is *void* for everyone: it was written by an owner that had already lost the
partition. Records are told apart by two headers, so nothing needs to be decoded: `ce_type` (`log.fenced`,
`log.positioned`, else an event) and `mplp_epoch`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

FENCED = "log.fenced"  #: type of `Fence` records
POSITIONED = "log.positioned"  #: type of `Position` records


class Verdict(Enum):
    """What a record of a log is for a reader."""

    VALID = "valid"  #: an event that counts
    VOID = "void"  #: an event or position of a lower epoch, or without an epoch: nobody may use it
    FENCE = "fence"  #: a fence that counts: the epoch is now its own
    FENCE_IGNORED = "fence-ignored"  #: a claim that came second
    POSITION = "position"  #: a position of the current owner


class ReadersRule:
    """The rule for one log partition. `epoch` is the current one at the reader's position; 0 before the first fence."""

    __slots__ = ("epoch",)

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch

    def judge(self, record_type: str, epoch: int | None) -> Verdict:
        """The verdict on the next record of the partition, given its type and its epoch (None: it carries none)."""
        if record_type == FENCED:
            if epoch is None or epoch <= self.epoch:
                return Verdict.FENCE_IGNORED
            self.epoch = epoch
            return Verdict.FENCE
        if epoch is None or epoch != self.epoch:
            # Higher than the fence in force cannot be: an owner writes only after it has read its own fence back.
            return Verdict.VOID
        return Verdict.POSITION if record_type == POSITIONED else Verdict.VALID

    def judge_headers(self, headers: Iterable[tuple[str, bytes]]) -> Verdict:
        """As `judge`, from a record's Kafka headers."""
        return self.judge(*type_and_epoch(headers))


def type_and_epoch(headers: Iterable[tuple[str, bytes]]) -> tuple[str, int | None]:
    """`ce_type` and `mplp_epoch` of a record's headers; empty and None where they are missing or unreadable."""
    record_type, epoch = "", None
    for name, value in headers:
        if name == "ce_type":
            record_type = value.decode(errors="replace")
        elif name == "mplp_epoch":
            epoch = int(value) if value.isdigit() and len(value) < 10 else None
    return record_type, epoch
