"""Composites as records that other rules read: what matching sees of them, and the *link* that goes along. Pure.

A composite that rules read carries a link (header `CHAIN_HEADER`) with what is no part of the contract but needed to read it like
the record of a single sequence: which rules read it (those that its own partition knows by then, so that a rule begins with the
composites said after it came into force), the place of the record that fired it, and, if it revises an earlier saying, what that
said. So whoever matches composites keeps nothing of earlier ones.

A match of a composite (`streams.correlation.rows`) has in `extra`: `after`, the place behind which it stands and the level of its rule;
`before`, what the rule read until now and reads no more; `gone`, that it reads nothing from now on (the match is what it read before);
`said`, the offset of the matches record that led to it, and its revision, by which what lies in the log twice is told apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from streams.correlation.engine import Engine
from streams.correlation.explain import composite
from streams.correlation.index import Hit, RuleIndex
from streams.correlation.payload import SMALL_CHARACTERS, payload_of
from streams.correlation.rows import value_of_json
from streams.correlation.seen import Arrival, Draft, Place, Seen
from streams.matching.matchers import RecordView
from streams.records import CompositeEvent, to_micros
from streams.topics import COMPOSITES

#: What matching sees of a composite: what follows from its rule, its group and the records that it uses.
_FIELDS = (
    "id", "type", "source", "subject", "time", "tenant", "correlation_id", "causation_id", "data", "severity", "rule_id", "rule_version",
    "correlation_type", "group_key", "event_count", "confidence",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Link:
    """See the module."""

    readers: Mapping[str, int]  #: rule → order of its version
    level: int  #: of the rule that says the composite
    place: Place
    before: Mapping[str, Any] | None  #: fields in which what it said until now differs; None: it said nothing

    def dump(self) -> bytes:
        """As the value of the header."""
        return orjson.dumps({"readers": self.readers, "level": self.level, "place": self.place, "before": self.before})

    @classmethod
    def load(cls, value: bytes) -> Link:
        """From `dump`."""
        content = orjson.loads(value)
        arrival, record_id = content["place"]
        return cls(content["readers"], content["level"], (tuple(arrival), record_id), content["before"])


#: What a revision may change of how a rule reads a composite.
_REVISED = ("time_us", "tenant", "correlation_id", "names", "data", "value")

Read = tuple[RecordView, Hit]  #: a composite as a rule reads it


@dataclass(frozen=True, slots=True)
class Reading:
    """A composite for one rule and group: as that rule read it until now, and as it reads it from now on. Not both are None."""

    rule_id: str
    group_key: str
    before: Read | None
    after: Read | None


class Fed(NamedTuple):
    """What a match of a composite means: (group, record) as the rule has read it until now, and as it reads it from now on."""

    before: tuple[str, Seen] | None
    after: tuple[str, Seen] | None
    arrival: Arrival


def link_of(engine: Engine, draft: Draft, said: CompositeEvent) -> Link | None:
    """The link of a composite that the engine says; None: no rule reads it."""
    readers = engine.readers(draft.rule_id)
    active = engine.active(draft.rule_id)
    if not readers or active is None:
        return None
    before: dict[str, Any] | None = None
    if draft.before is not None:
        earlier = Draft(draft.rule_id, draft.group_key, draft.composite_id, draft.before)
        now, was = composite_plain(said), composite_plain(composite(active, earlier))
        before = {name: value for name, value in was.items() if value != now[name]}
    return Link(readers, engine.level(draft.rule_id), draft.place, before)


def composite_plain(said: CompositeEvent) -> dict[str, Any]:
    """A composite as matching sees it: `data` as JSON text, `time` in microseconds."""
    plain = {name: getattr(said, name) for name in _FIELDS}
    return {**plain, "time": to_micros(said.time), "data": orjson.dumps(said.data).decode(), "group_key": dict(said.group_key)}


def readings(index: RuleIndex, plain: Mapping[str, Any], link: Link, *, retracted: bool) -> Iterator[Reading]:
    """What the rules that read a composite make of it. `plain`: as `composite_plain` gives it, or with more fields."""
    now = {name: plain[name] for name in _FIELDS}
    after = {} if retracted else _read(index, now, link)
    before = {} if link.before is None else _read(index, {**now, **link.before}, link)
    for rule_id, key in dict.fromkeys((*before, *after)):
        reading = Reading(rule_id, key, before.get((rule_id, key)), after.get((rule_id, key)))
        if reading.before is None or reading.after is None or _content(reading.before) != _content(reading.after):
            yield reading


def _read(index: RuleIndex, plain: Mapping[str, Any], link: Link) -> dict[tuple[str, str], Read]:
    view = RecordView(plain)
    return {
        (hit.active.id, hit.group_key): (view, hit)
        for hit in index.hits(COMPOSITES, view)
        if link.readers.get(hit.active.id, -1) >= hit.active.order
    }


def _content(read: Read) -> tuple[Any, ...]:
    view, hit = read
    return (hit.names, hit.value, *(view.plain[name] for name in ("time", "tenant", "correlation_id", "data")))


def composite_rows(
    index: RuleIndex, plain: Mapping[str, Any], link: Link, *, retracted: bool
) -> Iterator[tuple[Hit, RecordView, dict[str, Any]]]:
    """The matches of a composite, one per rule and group that reads it, or has read what it said before; with their `extra`."""
    for reading in readings(index, plain, link, retracted=retracted):
        read = reading.after or reading.before
        assert read is not None
        extra: dict[str, Any] = {"after": [*link.place, link.level]}
        if reading.after is None:
            extra["gone"] = True
        elif reading.before is not None:
            before = seen_of(*reading.before)
            extra["before"] = {name: getattr(before, name) for name in _REVISED}
        yield read[1], read[0], extra


def fed_of(seen: Seen, group_key: str, extra: Mapping[str, Any]) -> Fed:
    """What a match of a composite means; `seen` is the record of its row."""
    arrival, record_id, level = extra["after"]
    seen = seen._replace(after=(tuple(arrival), record_id, level))
    if "gone" in extra:
        return Fed((group_key, seen), None, tuple(arrival))
    before = extra.get("before")
    if before is None:
        return Fed(None, (group_key, seen), tuple(arrival))
    was = seen._replace(**{**before, "names": tuple(before["names"]), "value": value_of_json(before["value"])})
    return Fed((group_key, was), (group_key, seen), tuple(arrival))


def seen_of(view: RecordView, hit: Hit, depth: int = 0) -> Seen:
    """What the engine keeps of a record for the rule that it hit."""
    record_id, record_type, source, tenant, correlation_id, data, _ = view.essentials()
    if len(data) > SMALL_CHARACTERS:
        data, _ = payload_of(hit.active.rule, data, lambda: view.data)
    # Made for every record of a backtest: without the detour over a constructor in Python.
    return _new_seen(Seen, (view.time_us, record_id, record_type, source, tenant, correlation_id, hit.names, data, hit.value, None, depth))


_new_seen = tuple.__new__
