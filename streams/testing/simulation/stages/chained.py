"""Composites on their way to the rules that read them, seen from the outside: matched if they count, and before any mark says so."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from streams.correlation.composites import Link, composite_rows
from streams.correlation.index import RuleIndex
from streams.correlation.rows import read_rows
from streams.correlation.rules import ActiveRule, aggregate_of
from streams.topics import partition_of

Version = tuple[str, int]
Violate = Callable[[str, str], None]
#: A composite's partition and offset, and the group of the rule that reads it.
Reading = tuple[int, int, str]


class ChainWatch:
    """See the module. `versions`: every version of a rule that ever was in force."""

    def __init__(self, partitions: int, versions: Mapping[Version, ActiveRule], violate: Violate) -> None:
        self._partitions, self._versions, self._violate = partitions, versions, violate
        self._said: dict[tuple[int, int], tuple[dict[str, Any], Link]] = {}
        self._indexes: dict[Version, RuleIndex] = {}
        self._owed: dict[tuple[int, int], deque[tuple[Version, Reading]]] = defaultdict(deque)  # (composites, matches) → in order
        self._matched: dict[Version, set[Reading]] = defaultdict(set)
        self.fixed: frozenset[str] = frozenset()  #: rules that never change: they read every composite
        self.read: dict[Version, set[str]] = defaultdict(set)  #: ids of the composites that a version has read, at some time

    def said(self, number: int, offset: int, plain: dict[str, Any], link: Link, *, repeated: bool) -> None:
        """A composite counts that rules read; `repeated`: it lies there for the second time, and may be read or not."""
        self._said[number, offset] = (plain, link)
        if repeated:
            return
        for version in link.readers.items():
            for group in self._groups(version, plain, link) if version[0] in self.fixed else ():
                target = partition_of(aggregate_of(version[0], group), self._partitions)
                self._owed[number, target].append((version, (number, offset, group)))

    def _groups(self, version: Version, plain: dict[str, Any], link: Link) -> set[str]:
        """The groups in which a version reads it, or has read what it said before."""
        if version not in self._indexes:
            self._indexes[version] = RuleIndex([self._versions[version]])
        return {hit.group_key for hit, _, _ in composite_rows(self._indexes[version], plain, link, retracted=plain["retracted"])}

    def matched(self, number: int, batch: Mapping[str, Any]) -> None:
        """Matches of composites were stored in a partition of matches."""
        rules, rows = read_rows(batch["data"])
        for row in rows:
            rule_id, order, _ = rules[row[0]]
            place, group = (batch["partition"], row[1]), row[9]
            found = self._said.get(place)
            if found is None:
                self._violate("only-what-counts", f"{rule_id} is to read composites {place}, which is none, void or read by no rule")
                continue
            if group not in self._groups((rule_id, order), *found):
                self._violate("only-what-matches", f"{rule_id} is to read composites {place} for the group {group}")
            if partition_of(aggregate_of(rule_id, group), self._partitions) != number:
                self._violate("only-what-matches", f"{rule_id}, {group} is to read composites {place} in partition {number}")
            self._matched[rule_id, order].add((*place, group))
            self.read[rule_id, order].add(row[4])

    def reached(self, number: int, composites: int, offset: int) -> None:
        """A mark in a partition of matches says that all composites of a partition before this offset are matched there."""
        owed = self._owed[composites, number]
        while owed and owed[0][1][1] < offset:
            version, reading = owed.popleft()
            if reading not in self._matched[version]:
                where = f"composites {composites}, matches {number}"
                self._violate("clock-behind-matches", f"{where}: a mark speaks of {offset}, {version[0]} has not read {reading}")

    def unmatched(self) -> Iterator[str]:
        """What rules that never change have not read."""
        for owed in self._owed.values():
            for version, reading in owed:
                if reading not in self._matched[version]:
                    yield f"{version[0]} has not read composites {reading}"
