"""The state of one partition of `mplp.internal.matches`: a fold of its records, and what that fold says. Pure.

`apply` takes records in order, as plain fields; everything it decides follows from them, so a successor that replays them
from a checkpoint says the same, with the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from streams.correlation.clock import UNKNOWN_US, Clocks
from streams.correlation.composites import fed_of, link_of
from streams.correlation.engine import Engine
from streams.correlation.explain import composite
from streams.correlation.intentions import Headers, headers_of_said
from streams.correlation.level_clocks import LevelClocks, LevelMark
from streams.correlation.parse import parse_rule
from streams.correlation.rows import MatchedRule, Row, read_rows, seen_of_row, value_of_json
from streams.correlation.rules import ActiveRule
from streams.correlation.seen import Arrival, Draft, Seen
from streams.errors import InvalidDocument
from streams.records import CompositeEvent, Json
from streams.topics import CHAIN_HEADER, COMPOSITES

#: Before every (offset, ordinal).
_NOWHERE = (-1, -1)


@dataclass(slots=True)
class PartitionCounters:
    """What happened to the matches of a partition besides what the engine counts."""

    matches: int = 0
    repeated: int = 0  #: not above the last of their source: written twice after a crash
    outdated: int = 0  #: of a version that is no longer in use
    unknown: int = 0  #: of a version that this partition was never told of


@dataclass(slots=True)
class Read:
    """What a rule has read of a partition of the composites."""

    offset: int  #: of the matches record that led to the last ones
    said: set[tuple[str, int, str]]  #: what it has read of those: id, revision, group


class CorrelatePartition:
    """See the module."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.counters = PartitionCounters()
        self._clocks = Clocks()
        self._level_clocks = LevelClocks()
        # Source partition → rule → (offset, ordinal) of its last match. Of each rule: whoever wrote what is there already may not
        # have known all the rules of who writes it again.
        self._last: dict[tuple[str, int], dict[str, tuple[int, int]]] = {}
        self._read: dict[int, dict[str, Read]] = {}  # partition of the composites → rule → the last that it has read
        self._ended: dict[str, int] = {}  # rule → order of the version that deleted or disabled it
        self._headers: dict[tuple[str, int], Headers] = {}  # (composite, revision) of the last `apply` → what goes along with it

    def apply(self, name: str, plain: Mapping[str, Any], timestamp_us: int) -> list[CompositeEvent]:
        """The next record, written at `timestamp_us`; the composites it leads to.

        `MatchBatch`, `Watermark`, `RuleChange`, or a `Match`, as earlier versions of the product wrote it.
        """
        self._headers = {}
        if name == "MatchBatch":
            return self._composites(self._batch(plain, timestamp_us))
        if name == "Match":
            return self._composites(self._match(plain, timestamp_us))
        if name == "Watermark":
            return self._composites(self._watermark(plain, timestamp_us))
        if name == "RuleChange":
            self._rule_changed(plain)
        return []

    def headers_of(self, composite: CompositeEvent) -> Headers:
        """Headers of a composite that the last `apply` gave: its depth, the actions of its rule, and what rules need that read it."""
        return self._headers.get((composite.id, composite.revision), ())

    def marks(self, partition: int, offset: int) -> list[LevelMark]:
        """How far the levels that others wait for have come, once what was said is acknowledged, before `offset` of the composites."""
        clocks_us = self.engine.clocks_us[:-1] if self.engine.chained else ()
        return [LevelMark(partition, level, clock_us, offset) for level, clock_us in enumerate(clocks_us) if clock_us > UNKNOWN_US]

    def _watermark(self, plain: Mapping[str, Any], timestamp_us: int) -> list[Draft]:
        """Marks of sources (level 0), or of the rules of a level, numbered from 1."""
        drafts: list[Draft] = []
        if plain["level"] == 0:
            content = orjson.loads(plain["data"])
            sources = []
            for mark in plain["marks"]:
                if mark["topic"] == COMPOSITES:
                    self._level_clocks.reached(mark["partition"], mark["offset"], partitions=content["composites"])
                else:
                    sources.append(mark)
            clock_us = self._clocks.update(content.get("partitions", {}), sources, timestamp_us)
            drafts = [] if clock_us is None else self.engine.advance(clock_us, 0)
        else:
            for mark in plain["marks"]:
                self._level_clocks.told(LevelMark(mark["partition"], plain["level"] - 1, mark["time"], mark["offset"]))
        for level in self.engine.levels[1:]:
            clock_us = self._level_clocks.clock(level - 1)
            if clock_us is not None:
                drafts += self.engine.advance(clock_us, level)
        return drafts + self.engine.flush()

    def _batch(self, plain: Mapping[str, Any], timestamp_us: int) -> list[Draft]:
        rules, rows = read_rows(plain["data"])
        self.counters.matches += len(rows)
        topic, partition = source = (plain["topic"], plain["partition"])
        last = self._last.setdefault(source, {})
        drafts: list[Draft] = []
        first = 0
        while first < len(rows):
            # Rows of one rule that follow each other are fed together: mostly all of them.
            number, end = rows[first][0], first + 1
            while end < len(rows) and rows[end][0] == number:
                end += 1
            drafts += self._rows(rules[number], rows[first:end], (topic, partition), last, timestamp_us)
            first = end
        return drafts

    def _rows(
        self, rule: MatchedRule, rows: Sequence[Row], source: tuple[str, int], last: dict[str, tuple[int, int]], timestamp_us: int
    ) -> list[Draft]:
        """Rows of one rule; `last`: of their source partition."""
        rule_id, order, names = rule
        if not self._in_use(rule_id, order):
            for _ in rows:
                self._not_in_use(rule_id, order)
            return []
        place, repeated = last.get(rule_id, _NOWHERE), 0
        topic, partition = source
        fed: list[tuple[str, Seen, Arrival]] = []
        drafts: list[Draft] = []
        for row in rows:
            at = (row[1], row[2])
            if at <= place:
                repeated += 1
                continue
            place = at
            seen, extra = seen_of_row(row, names), row[11]
            if topic != COMPOSITES:
                at_us = timestamp_us if extra is None else extra.get("at", timestamp_us)
                fed.append((row[9], seen, (at_us, topic, partition, row[1])))
            elif self._is_repeated(partition, rule_id, row[4], row[9], extra or {}):
                repeated += 1
            else:
                drafts += self.engine.revise(rule_id, *fed_of(seen, row[9], extra or {}))
        last[rule_id] = place
        self.counters.repeated += repeated
        drafts += self.engine.feed_all(rule_id, fed)
        return drafts

    def _is_repeated(self, partition: int, rule_id: str, composite_id: str, group_key: str, extra: Mapping[str, Any]) -> bool:
        """Whether a composite lies in the log for the second time: an append whose outcome was unknown may be stored twice, the second time
        late, and what was retracted meanwhile must not come back. What is said follows the order of the matches that led to it.
        """
        if "said" not in extra:
            return False  # written by an earlier version
        offset, revision = extra["said"]
        read = self._read.setdefault(partition, {}).setdefault(rule_id, Read(offset, set()))
        if offset < read.offset or (offset == read.offset and (composite_id, revision, group_key) in read.said):
            return True
        if offset > read.offset:
            read.offset, read.said = offset, set()
        read.said.add((composite_id, revision, group_key))
        return False

    def _in_use(self, rule_id: str, order: int) -> bool:
        active = self.engine.active(rule_id)
        return active is not None and active.order == order

    def _not_in_use(self, rule_id: str, order: int) -> None:
        active = self.engine.active(rule_id)
        if order <= self._ended.get(rule_id, -1) or (active is not None and order < active.order):
            self.counters.outdated += 1
        else:
            self.counters.unknown += 1

    def _match(self, plain: Mapping[str, Any], timestamp_us: int) -> list[Draft]:
        self.counters.matches += 1
        rule_id, order = plain["rule_id"], plain["rule_version"]
        if not self._in_use(rule_id, order):
            self._not_in_use(rule_id, order)
            return []
        source, place = (plain["topic"], plain["partition"]), (plain["offset"], plain["ordinal"])
        last = self._last.setdefault(source, {})
        if place <= last.get(rule_id, _NOWHERE):
            self.counters.repeated += 1
            return []
        last[rule_id] = place
        value, depth = _of_fields(plain.get("fields", "{}"))
        seen = Seen(
            plain["time"], plain["id"], plain["type"], plain["source"], plain["tenant"], plain["correlation_id"], tuple(plain["names"]),
            plain["data"], value, depth=depth,
        )  # fmt: skip
        return self.engine.feed(rule_id, plain["group_key"], seen, (timestamp_us, *source, plain["offset"]))

    def _rule_changed(self, plain: Mapping[str, Any]) -> None:
        rule_id, order = plain["rule_id"], plain["rule_version"]
        active = self.engine.active(rule_id)
        if order <= self._ended.get(rule_id, -1) or (active is not None and order <= active.order):
            return
        for last in self._last.values():
            last.pop(rule_id, None)
        for read in self._read.values():
            read.pop(rule_id, None)
        if plain["deleted"]:
            self._ended[rule_id] = order
            self.engine.drop(rule_id)
            return
        try:
            rule = parse_rule(orjson.loads(plain["content"]))
        except InvalidDocument:
            # Written by a newer version of this product; its matches are counted as unknown.
            self.engine.drop(rule_id)
            return
        self._ended.pop(rule_id, None)
        self.engine.use(ActiveRule(rule=rule, version=orjson.loads(plain["data"]).get("version", 0), order=order))

    def _composites(self, drafts: list[Draft]) -> list[CompositeEvent]:
        found = []
        for draft in drafts:
            active = self.engine.active(draft.rule_id)
            assert active is not None
            counters = self.engine.counters(draft.rule_id)
            if draft.revision:
                counters.revised += 1
            else:
                counters.composites += 1
            said = composite(active, draft)
            headers = headers_of_said(active.rule, said, draft)
            link = link_of(self.engine, draft, said)
            if link is not None:
                headers = (*headers, (CHAIN_HEADER, link.dump()))
            if headers:
                self._headers[said.id, said.revision] = headers
            found.append(said)
        return found

    def dump(self) -> Json:
        """Everything but the groups, as JSON, for checkpoints."""
        return {
            "clocks": self._clocks.dump(),
            "level_clocks": self._level_clocks.dump(),
            "clocks_us": self.engine.clocks_us,
            "floors_us": self.engine.floors_us(),
            "last": [[topic, partition, last] for (topic, partition), last in self._last.items()],
            "read": [
                [partition, rule_id, read.offset, sorted(read.said)]
                for partition, by_rule in self._read.items()
                for rule_id, read in by_rule.items()
            ],
            "rules": [
                {
                    "order": active.order,
                    "version": active.version,
                    "document": active.rule.document,
                    "counters": self.engine.counters(active.id).dump(),
                }
                for active in self.engine.rules()
            ],
            "ended": self._ended,
        }

    def load(self, state: Json) -> None:
        """Takes over what `dump` gave; then the groups (`engine.load_group`)."""
        self._clocks.load(state["clocks"])
        self._level_clocks.load(state["level_clocks"])
        self._last = {
            (topic, partition): {rule_id: (offset, ordinal) for rule_id, (offset, ordinal) in last.items()}
            for topic, partition, last in state["last"]
        }
        self._read = {}
        for partition, rule_id, offset, said in state.get("read", ()):
            self._read.setdefault(partition, {})[rule_id] = Read(offset, {(composite_id, *rest) for composite_id, *rest in said})
        self._ended = state["ended"]
        for item in state["rules"]:
            self.engine.use(ActiveRule(rule=parse_rule(item["document"]), version=item["version"], order=item["order"]))
            self.engine.restore(item["document"]["id"], item.get("counters", {}))
        self.engine.resume(state["clocks_us"], state["floors_us"])


def _of_fields(fields: str) -> tuple[Any, int]:
    """What the match stage found: the value of the condition's field, and the record's depth."""
    found = orjson.loads(fields)
    return value_of_json(found.get("value")), found.get("depth", 0)
