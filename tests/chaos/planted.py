"""Records among which known composites are planted, with rules of several types, and what must come out: by construction, not by an engine.

Every pattern that is planted has decoys that lack one thing. Everything else is noise, each with a group of its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import yaml

from streams.correlation.rules import aggregate_of
from streams.records import Json, SystemEvent, derived_id
from streams.topics import partition_of

#: How far records are sent behind others, seconds. The rules' grace (30 s) also bears that a partition is taken for idle for some seconds
#: after its owner was killed, on a machine that does much else.
DISORDER_S = 2.0
#: Longest time that a planted pattern and its deadlines take, seconds.
LONGEST_S = 30.0


RULES: list[dict[str, Any]] = list(
    yaml.safe_load_all("""
id: burst
events: {failed: {type: job.failed, severity: error}}
correlation: {type: event_count, group-by: [data.job], timespan: 10s, grace: 30s, condition: {gte: 5}}
---
id: guess
events: {failed: {type: login.failed}, mfa: {type: login.mfa}, login: {type: login.done}}
correlation:
  type: temporal_ordered
  events: [{event: failed, times: 3}, {not: mfa}, login]
  group-by: [data.user]
  timespan: 10s
  grace: 30s
---
id: unanswered
events: {request: {type: call.sent}, answer: {type: call.answered}}
correlation:
  type: absence
  events: [request, answer]
  group-by: [call]
  aliases: {call: {request: data.call, answer: data.reply_to}}
  timespan: 5s
  grace: 30s
---
id: visit
events: {page: {type: page.opened}}
correlation: {type: event_count, window: session, gap: 3s, grace: 30s, group-by: [data.visitor], condition: {eq: 4}}
---
id: devices
events: {seen: {type: device.seen, where: data.trusted == false}}
correlation:
  type: value_count
  group-by: [data.account]
  timespan: 20s
  grace: 30s
  output: final
  condition: {field: data.device, gte: 4}
---
id: spent
events: {charge: {type: card.charged}}
correlation:
  type: value_sum
  window: session
  gap: 4s
  grace: 30s
  group-by: [data.card]
  output: final
  condition: {field: data.amount, gte: 1000}
---
id: witness
events: {witness: {type: witness.stood}}
correlation: {type: event_count, group-by: [data.witness], timespan: 1s, grace: 0, output: final, condition: {gte: 1}}
""")
)


@dataclass(frozen=True, slots=True)
class Item:
    """A record to be produced: when it says that it happened, seconds from the beginning."""

    at: float
    type: str
    id: str
    data: Json
    severity: str = "info"


@dataclass(slots=True)
class Plan:
    """What is planted, and what must come of it: (rule, group) → ids of the records, in their order."""

    total: int
    span_s: float
    seed: int
    planted: list[tuple[float, Item]] = field(default_factory=list)  #: with the moment at which it is sent
    expected: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    def chunks(self, size: int = 1000) -> Iterator[list[Item]]:
        """All records in the order in which they are sent: what is planted, filled up with noise."""
        chance = random.Random(self.seed + 1)
        planted = sorted(self.planted, key=lambda sent: (sent[0], sent[1].id), reverse=True)
        noise = self.total - len(self.planted)
        step = self.span_s * size / noise
        for first in range(0, noise, size):
            numbers = range(first, min(first + size, noise))
            end = (first // size + 1) * step
            sent = [(at, _noise(chance, number, at)) for number in numbers for at in [end - step * chance.random()]]
            while planted and (planted[-1][0] < end or numbers.stop == noise):
                sent.append(planted.pop())
            yield [item for _, item in sorted(sent, key=lambda each: each[0])]


def plan(total: int, span_s: float, *, share: float = 0.03, seed: int = 1) -> Plan:
    """A plan of so many records over so many seconds of event time; about `share` of them belong to patterns and decoys."""
    made = Plan(total, span_s, seed)
    chance = random.Random(seed)
    number = 0
    while len(made.planted) < total * share:
        for pattern in (_burst, _guess, _unanswered, _visit, _devices, _spent):
            number += 1
            begin = chance.uniform(0.0, max(0.1, span_s - LONGEST_S / 3))
            rule, group, items, fires = pattern(chance, f"g{number}", begin)
            made.planted += [(each.at + chance.uniform(0.0, DISORDER_S), each) for each in items]
            again = chance.choice(items)
            if chance.random() < 0.2:  # a producer that sends twice
                made.planted.append((again.at + DISORDER_S, again))
            if fires is not None:
                made.expected[rule, group] = tuple(id_of(each) for each in fires)
    return made


_Made = tuple[str, str, list[Item], list[Item] | None]


def _items(group: str, name: str, offsets: list[float], begin: float, type_: str, **more: Any) -> list[Item]:
    data = more.pop("data", {})
    return [Item(begin + at, type_, f"{group}-{name}{n}", {name: group, "n": n, **data}, **more) for n, at in enumerate(sorted(offsets))]


def _burst(chance: random.Random, group: str, begin: float) -> _Made:
    """Five failures within ten seconds; decoys: four, or the fifth ten seconds after the first."""
    kind = chance.choice(("fires", "fires", "few", "slow"))
    inner = [chance.uniform(0.1, 8.0) for _ in range(3)]
    offsets = {"fires": [0.0, *inner, 9.9], "few": [0.0, *inner], "slow": [0.0, *inner, 10.0]}[kind]
    items = _items(group, "job", offsets, begin, "job.failed", severity="error")
    items += [Item(begin + 1.0, "job.failed", f"{group}-warning", {"job": group}, "warning")]
    return "burst", group, items, items[:5] if kind == "fires" else None


def _guess(chance: random.Random, group: str, begin: float) -> _Made:
    """Three failures, then a login; decoys: a second factor in between, two failures, or too long ago."""
    kind = chance.choice(("fires", "fires", "factor", "two", "slow"))
    offsets = [0.0, chance.uniform(0.5, 2.0), chance.uniform(2.5, 4.0)][: 2 if kind == "two" else 3]
    failed = _items(group, "user", offsets, begin, "login.failed")
    login = Item(begin + (10.0 if kind == "slow" else chance.uniform(6.0, 9.9)), "login.done", f"{group}-login", {"user": group})
    between = [Item(begin + 5.0, "login.mfa", f"{group}-mfa", {"user": group})] if kind == "factor" else []
    return "guess", group, [*failed, *between, login], [*failed, login] if kind == "fires" else None


def _unanswered(chance: random.Random, group: str, begin: float) -> _Made:
    """A call without an answer within five seconds; decoys: one in time."""
    after = chance.choice((None, 5.0, 4.99, 0.1, 2.5))
    call = Item(begin, "call.sent", f"{group}-call", {"call": group})
    answer = [] if after is None else [Item(begin + after, "call.answered", f"{group}-answer", {"reply_to": group})]
    return "unanswered", group, [call, *answer], [call] if after in (None, 5.0) else None


def _visit(chance: random.Random, group: str, begin: float) -> _Made:
    """A session of exactly four pages; decoys: three, five, or a gap of three seconds."""
    kind = chance.choice(("fires", "fires", "three", "five", "gap"))
    gaps = [chance.uniform(0.1, 2.9) for _ in range({"three": 2, "five": 4}.get(kind, 3))]
    if kind == "gap":
        gaps[1] = 3.0
    offsets = [sum(gaps[:n]) for n in range(len(gaps) + 1)]
    items = _items(group, "visitor", offsets, begin, "page.opened")
    return "visit", group, items, items if kind == "fires" else None


def _devices(chance: random.Random, group: str, begin: float) -> _Made:
    """Four devices of one account; decoys: three of them twice, or the fourth is trusted."""
    kind = chance.choice(("fires", "three", "trusted"))
    named = ["a", "b", "b", "c", "d"] if kind != "three" else ["a", "b", "b", "c", "a"]
    items = []
    for n, device in enumerate(named):
        data = {"account": group, "device": device, "trusted": kind == "trusted" and device == "d"}
        items.append(Item(begin + n * 3.0 + chance.uniform(0.0, 2.5), "device.seen", f"{group}-device{n}", data))
    return "devices", group, items, items if kind == "fires" else None


def _spent(chance: random.Random, group: str, begin: float) -> _Made:
    """A thousand in one session; decoys: less, or texts that look like numbers."""
    kind = chance.choice(("fires", "less", "text"))
    amounts: list[Any] = {"fires": [400, 350.5, 249.5], "less": [400, 350.5, 249.25], "text": [400, 350.5, "900"]}[kind]
    items = [Item(begin + 2.0 * n, "card.charged", f"{group}-charge{n}", {"card": group, "amount": a}) for n, a in enumerate(amounts)]
    return "spent", group, items, items if kind == "fires" else None


_NOISE = (
    ("page.viewed", "path", 60), ("job.failed", "job", 6), ("login.failed", "user", 6), ("login.done", "user", 4),
    ("call.answered", "reply_to", 6), ("page.opened", "visitor", 6), ("device.seen", "account", 6), ("card.charged", "card", 6),
)  # fmt: skip
_NOISE_TYPES = [name for name, _, _ in _NOISE]
_NOISE_WEIGHTS = [weight for _, _, weight in _NOISE]
_NOISE_KEYS = {name: key for name, key, _ in _NOISE}


def _noise(chance: random.Random, number: int, at: float) -> Item:
    name = chance.choices(_NOISE_TYPES, _NOISE_WEIGHTS)[0]
    data: dict[str, Any] = {
        _NOISE_KEYS[name]: f"n{number}",
        "amount": chance.randrange(100),
        "device": "x",
        "trusted": chance.random() < 0.5,
    }
    return Item(at, name, f"n{number}", data, "error" if chance.random() < 0.3 else "info")


# --- as events ---


def id_of(item: Item) -> str:
    """The id of its record."""
    return derived_id("plan", item.id)


def event_of(item: Item, begin: datetime) -> SystemEvent:
    """The record; its subject scatters what belongs together over all partitions."""
    severity: Any = item.severity
    return SystemEvent(
        id=id_of(item), type=item.type, source="plan", subject=f"s{crc32(item.id.encode()) % 997}", time=begin + timedelta(seconds=item.at),
        data=item.data, severity=severity,
    )  # fmt: skip


def hostile(begin: datetime, at: float, number: int) -> list[SystemEvent]:
    """Records that must do nothing: from the end of time, and five failures of one job a month ago."""
    time = begin + timedelta(seconds=at)
    far = datetime(2299, 12, 31, tzinfo=UTC)
    old = time - timedelta(days=30)
    events = [SystemEvent(type="job.failed", subject=f"s{number}", time=far, data={"job": f"far{number}"}, severity="error")]
    events += [SystemEvent(type="call.sent", subject=f"s{n}", time=old, data={"call": f"old{number}-{n}"}) for n in range(5)]
    return [*events, SystemEvent(type="card.charged", subject=f"s{number}", time=time, data={"card": ["x"] * 3000, "amount": 1e308})]


def ticks(begin: datetime, at: float, partitions: int) -> list[SystemEvent]:
    """One record for every source partition, which moves its clock."""
    found: dict[int, SystemEvent] = {}
    number = 0
    while len(found) < partitions:
        subject = f"t{number}"
        number += 1
        found.setdefault(
            partition_of(subject, partitions),
            SystemEvent(type="clock.ticked", subject=subject, time=begin + timedelta(seconds=at), data={}),
        )
    return list(found.values())


def witnesses(begin: datetime, at: float, partitions: int) -> list[SystemEvent]:
    """One record for every partition of matches: when its composite is there, all that came before it has been said."""
    found: dict[int, SystemEvent] = {}
    number = 0
    while len(found) < partitions:
        key = f"w{number}"
        number += 1
        event = SystemEvent(type="witness.stood", subject=key, time=begin + timedelta(seconds=at), data={"witness": key})
        found.setdefault(partition_of(aggregate_of("witness", f'["{key}"]'), partitions), event)
    return list(found.values())
