"""What may keep a rule from firing, in sentences that say what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from streams.correlation.rules import WINDOWED, Rule
from streams.correlation.running import BEGINNING_US
from streams.correlation.sentences import ago, listed, moment
from streams.correlation.standing import Standing
from streams.correlation.tallies import Tally
from streams.durations import format_duration
from streams.records import to_micros

#: Records that workers may be behind, and time that event time may be, microseconds, before it is worth telling.
_BEHIND_MAX = 1000
_CLOCK_BEHIND_US = 300_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a rule and of those who run it."""

    now: datetime
    enabled: bool
    who: str  #: of the version in force
    why: str
    since: datetime
    workers: tuple[str, ...]  #: that live
    waiting: tuple[str, ...]  #: of those: that have not read the version in force yet
    unused: bool  #: whether some partition of matches was never told of the version in force
    clock_us: int  #: the least clock of the partitions looked at
    tally: Tally | None
    behind: int  #: records that the workers have not acknowledged


def hints(rule: Rule, facts: Facts, standing: Standing | None) -> Iterator[str]:
    """The sentences, the gravest first. `standing`: of the group that was asked for."""
    if not facts.enabled:
        by = f" by {facts.who}" if facts.who else ""
        why = f": {facts.why}" if facts.why else ""
        yield f"The rule has been disabled since {moment(to_micros(facts.since))}{by}{why}. Apply it with enabled: true to run it."
        return
    yield from _running(facts)
    if facts.tally is not None:
        yield from _matching(rule, facts.tally, facts, standing)
        yield from _ignored(rule, facts.tally)


def _running(facts: Facts) -> Iterator[str]:
    if not facts.workers:
        yield "No worker is running, so nothing is matched: start one with `mplp up`."
    elif facts.waiting:
        yield f"{listed(facts.waiting, 'and')} {_has(facts.waiting)} not read this version of the rule yet: ask again in a moment."
    elif facts.unused:
        yield "The workers have not begun to use this version yet: ask again in a moment."
    if facts.clock_us <= BEGINNING_US and facts.workers:
        yield "Event time has not begun: a partition that the rule may depend on was not read to its end yet."
    elif facts.workers and to_micros(facts.now) - facts.clock_us > _CLOCK_BEHIND_US:
        yield (
            f"Event time stands at {moment(facts.clock_us)}, {ago(to_micros(facts.now) - facts.clock_us)} behind: windows and "
            "deadlines wait for it. The workers may be catching up, or one producer may be writing old records."
        )
    if facts.behind > _BEHIND_MAX:
        yield f"The workers are {facts.behind} records behind their topics: what came last is not counted yet."


def _matching(rule: Rule, tally: Tally, facts: Facts, standing: Standing | None) -> Iterator[str]:
    """Of the matchers that the next match needs: when they were last satisfied by anything."""
    for name in _wanted(rule, standing):
        last_us = tally.last_us.get(name)
        if last_us is None:
            ask = "is it produced, and does the rest of the matcher fit?"
            yield f"No record has satisfied {name}{_types(rule, name)} in any group since the workers began to use this version: {ask}"
        elif standing is not None:
            past = ago(to_micros(facts.now) - last_us)
            yield f"In any group, {name} was last satisfied by a record of {moment(last_us)} ({past} ago)."
    if tally.errors:
        yield f"An expression of the rule failed on {tally.errors} records, which therefore do not match; the last: {tally.last_error}."


def _ignored(rule: Rule, tally: Tally) -> Iterator[str]:
    if tally.late:
        grace = format_duration(rule.grace_us // 1000)
        yield (
            f"{_records(tally.late)} came too late to be used, the last {ago(tally.late_by_us)} behind the watermark "
            f"({', '.join(tally.late_ids)}): a grace longer than {grace} would take such records."
        )
    if tally.ahead:
        ids = ", ".join(tally.ahead_ids)
        yield f"{_records(tally.ahead)} lay more than five minutes in the future ({ids}): look at the clock of their source."
    if tally.evicted:
        yield f"{tally.evicted} groups were forgotten because there were too many at once: what they had seen is lost."
    if tally.overflowed:
        yield f"{_records(tally.overflowed)} are counted but no longer named: a group holds more than the rule keeps."


def _wanted(rule: Rule, standing: Standing | None) -> tuple[str, ...]:
    """The matchers whose records bring the rule nearer to a match; of a group those that it lacks."""
    if rule.type == "temporal_ordered":
        wanted = tuple(dict.fromkeys(step.name for step in rule.steps))
    else:
        wanted = rule.names[:1] if rule.type == "absence" else rule.names
    if standing is None:
        return wanted
    if rule.type in WINDOWED:
        return () if standing.count else wanted
    return tuple(name for name in wanted if name in standing.missing)


def _types(rule: Rule, name: str) -> str:
    for matcher in rule.matchers:
        if matcher.name == name and matcher.types:
            return f" (type {listed(matcher.types, 'or')})"
    return ""


def _records(count: int) -> str:
    return f"{count} record" if count == 1 else f"{count} records"


def _has(names: tuple[str, ...]) -> str:
    return "has" if len(names) == 1 else "have"
