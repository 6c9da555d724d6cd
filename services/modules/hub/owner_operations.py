"""Parameters and results of the operations on what owners know: checksum, state, rebuild."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from services.modules.operation import Identifier, Listing, Name, Page, Result, Text
from streams.records import Json


class Checksum(Page):
    """Parameters of checksum."""

    module: Name | None = Field(None, description="Only this module.")


class StateOf(Page):
    """Parameters of state."""

    TARGETS: ClassVar[tuple[str, ...]] = ("id",)

    id: Identifier | None = Field(None, description="Only this aggregate.")
    module: Name | None = Field(None, description="Only aggregates of this module.")


class Rebuild(Page):
    """Parameters of rebuild."""

    reason: Text = ""


class ChecksumResult(Result):
    """What the owner of a partition knows of a module, in one number."""

    place: str = Field(description="Partition and module.")
    partition: int
    module: str
    aggregates: int
    checksum: str = Field(
        description="Sum of the SHA-256 of all aggregates, hexadecimal; of what has ended more than a day ago nothing counts."
    )


class ChecksumList(Listing):
    """Checksums by partition and module."""

    ENTRIES: ClassVar[str] = "checksums"
    KEY: ClassVar[str] = "place"

    checksums: list[ChecksumResult]


class StateResult(Result):
    """What the owner of its partition knows of an aggregate."""

    id: str
    module: str
    kind: str = Field(description="What sort of aggregate it is.")
    state: Json = Field(description="Its state as snapshots have it: fields that differ from their defaults, times in microseconds.")


class StateList(Listing):
    """States in order of the aggregates' ids."""

    ENTRIES: ClassVar[str] = "aggregates"
    KEY: ClassVar[str] = "id"

    aggregates: list[StateResult]


class RebuildResult(Result):
    """A partition whose owner folds it anew."""

    place: str = Field(description="The partition.")
    partition: int


class RebuildList(Listing):
    """Partitions that are folded anew."""

    ENTRIES: ClassVar[str] = "partitions"
    KEY: ClassVar[str] = "place"

    partitions: list[RebuildResult]
