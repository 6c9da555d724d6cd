"""How a group stands: what has been seen, what is missing, until when. *Why*, and *why not*. Pure; a look at live state."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from streams.correlation.anomaly_fold import Scored, ScoredWindows
from streams.correlation.explain import group_of
from streams.correlation.group import Group
from streams.correlation.rules import WINDOWED, ActiveRule, Rule, Step
from streams.correlation.seen import Judged, Seen
from streams.correlation.sentences import figure, group_text, instant, listed, moment, scope, sequence
from streams.durations import format_duration
from streams.records import iso

#: Records named.
_RECORDS_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRecord:
    """A record seen towards the next match."""

    id: str
    type: str
    time: datetime
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a group stands."""

    rule_id: str
    rule_version: int
    group: dict[str, str]
    watermark: datetime  #: what lies before is settled
    seen: tuple[SeenRecord, ...]  #: the newest ones
    count: int
    value: float | None  #: the figure, of rules that have one
    waiting: int  #: records that are only looked at when the watermark is past them
    missing: tuple[str, ...]  #: what the next match needs; empty: nothing but time
    until: datetime | None  #: when what was seen is over, or, if only time is missing, when it fires
    silent_until: datetime | None  #: matches are kept silent until then
    suppressed: int
    sentences: tuple[str, ...]
    judged: Judged | None = None  #: of `anomaly`: what the newest value was held against

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "rule_id": self.rule_id, "rule_version": self.rule_version, "group": self.group, "watermark": iso(self.watermark),
            "seen": [{"id": each.id, "type": each.type, "time": iso(each.time), "names": list(each.names)} for each in self.seen],
            "count": self.count, "value": self.value, "waiting": self.waiting, "missing": list(self.missing),
            "until": None if self.until is None else iso(self.until),
            "silent_until": None if self.silent_until is None else iso(self.silent_until), "suppressed": self.suppressed,
            "sentences": list(self.sentences), "judged": None if self.judged is None else asdict(self.judged),
        }  # fmt: skip


def standing(active: ActiveRule, group_key: str, group: Group | None, watermark_us: int) -> Standing:
    """How the group stands; `group` None: nothing is kept of it."""
    rule = active.rule
    records, value = ((), 0.0) if group is None else group.standing()
    deadline_us = None if group is None else group.fold.deadline_us
    missing = _missing(rule, records, value)
    until_us = deadline_us if rule.timed or rule.type == "anomaly" or not records else _over_us(rule, records)
    judged = group.fold.judged if group is not None and isinstance(group.fold, (Scored, ScoredWindows)) else None
    silent_us, suppressed = (None, 0) if group is None else group.silence
    silent_us = silent_us if silent_us is not None and silent_us > watermark_us else None
    names = group_of(rule, group_key)
    waiting = 0 if group is None else group.waiting
    return Standing(
        rule_id=rule.id, rule_version=active.version, group=names, watermark=instant(watermark_us),
        seen=tuple(
            SeenRecord(id=seen.id, type=seen.type, time=instant(seen.time_us), names=seen.names) for seen in records[-_RECORDS_MAX:]
        ),
        count=len(records), value=value if records and (rule.type in WINDOWED or rule.type == "anomaly") else None,
        waiting=waiting, missing=missing,
        until=None if until_us is None else instant(until_us), silent_until=None if silent_us is None else instant(silent_us),
        suppressed=suppressed, judged=judged,
        sentences=tuple(_sentences(rule, names, records, value, missing, until_us, waiting, silent_us, suppressed, judged)),
    )  # fmt: skip


def _missing(rule: Rule, records: tuple[Seen, ...], value: float) -> tuple[str, ...]:
    match rule.type:
        case "temporal":
            there = {name for seen in records for name in seen.names}
            return tuple(name for name in rule.names if name not in there)
        case "temporal_ordered":
            return tuple(step.name for step in rule.steps[len(records) :])
        case "absence":
            return () if records else (rule.names[0],)
        case _ if rule.timed:
            return () if records else (listed(rule.names, "or"),)
        case "anomaly":
            return (_above(rule),)
        case _:
            return tuple(
                _lacking(name, bound, value, rule) for name, bound in rule.condition.tests if not rule.condition.test_holds(name, value)
            )


def _above(rule: Rule) -> str:
    return f"a score above {rule.condition.threshold:.15g}"


def _lacking(name: str, bound: float, value: float, rule: Rule) -> str:
    if rule.type == "event_count":
        more = int(bound) + (1 if name == "gt" else 0) - int(value)
        return f"{more} more of {listed(rule.names, 'or')}"
    return f"{rule.condition.text()} (it is {value:.15g})"


def _over_us(rule: Rule, records: tuple[Seen, ...]) -> int | None:
    """When what was seen is over, or less: the first of the records leaves."""
    first_us, last_us = records[0].time_us, records[-1].time_us
    if rule.type in WINDOWED and rule.window == "tumbling":
        return first_us - first_us % rule.timespan_us + rule.timespan_us
    if rule.type in WINDOWED and rule.window == "session":
        end_us = last_us + rule.gap_us
        return min(end_us, first_us + rule.timespan_us) if rule.timespan_us else end_us
    return first_us + rule.timespan_us


def _sentences(
    rule: Rule, group: dict[str, str], records: tuple[Seen, ...], value: float, missing: tuple[str, ...], until_us: int | None,
    waiting: int, silent_us: int | None, suppressed: int, judged: Judged | None,
) -> list[str]:  # fmt: skip
    where = f" for {group_text(rule, group)}" if group else ""
    said = []
    if not records:
        said.append(f"Nothing that still counts has been seen{where}: the next match needs {_wanted(rule)}.")
    elif rule.timed:
        said.append(f"{_seen(rule, records, value, where)}. {_pending(rule, until_us)}.")
    else:
        before = "" if until_us is None else f" before {moment(until_us)}"
        said.append(f"{_seen(rule, records, value, where)}. Missing: {', '.join(missing) or 'nothing'}{before}.")
    if judged is not None:
        which = "The last window" if rule.timespan_us else "The newest record"
        usual = f"{judged.low:.6g} to {judged.high:.6g} is usual"
        said.append(f"{which} has {judged.value:.6g}; {judged.expected:.6g} was expected, and {usual}.")
    if waiting:
        said.append(f"{waiting} {'record waits' if waiting == 1 else 'records wait'} for the watermark.")
    if silent_us is not None:
        kept = f"; {suppressed} so far" if suppressed else ""
        said.append(f"Matches are kept silent until {moment(silent_us)}{kept}.")
    return said


def _wanted(rule: Rule) -> str:
    match rule.type:
        case "temporal":
            return f"{listed(rule.names, 'and')} within {format_duration(rule.timespan_us // 1000)}"
        case "temporal_ordered":
            return f"{sequence(rule.steps)} within {format_duration(rule.timespan_us // 1000)}"
        case "absence":
            return rule.names[0]
        case "anomaly":
            return f"{_above(rule)}, of {listed(rule.names, 'or')}"
        case _:
            return f"{rule.condition.text()} {scope(rule)}, of {listed(rule.names, 'or')}"


def _seen(rule: Rule, records: tuple[Seen, ...], value: float, where: str) -> str:
    last = f"the last at {moment(records[-1].time_us)}"
    match rule.type:
        case "temporal":
            return f"Seen{where}: {', '.join(dict.fromkeys(name for seen in records for name in seen.names if name in rule.names))}, {last}"
        case "temporal_ordered":
            steps: tuple[Step, ...] = rule.steps[: len(records)]
            return f"Seen{where}: {sequence(steps)}, {last}"
        case "absence":
            first = f"the first at {moment(records[0].time_us)}"
            return f"{len(records)} {'record' if len(records) == 1 else 'records'} of {rule.names[0]} without an answer{where}, {first}"
        case "rate_change":
            count = f"{len(records)} {'record' if len(records) == 1 else 'records'} of {listed(rule.names, 'or')}"
            return f"Seen{where}: {count} in this window, {last}"
        case "anomaly" if rule.timespan_us:
            count = f"{len(records)} {'record' if len(records) == 1 else 'records'} of {listed(rule.names, 'or')}"
            return f"Seen{where}: {count} in this window, {last}; the window before scored {value:.4f}"
        case "anomaly":
            return f"Seen{where}: {listed(rule.names, 'or')}, {last}, which scored {value:.4f}"
        case _:
            return f"Seen{where}: {figure(rule, value, len(records))}, {last}"


def _pending(rule: Rule, until_us: int | None) -> str:
    before, at = ("", "") if until_us is None else (f" before {moment(until_us)}", f", at {moment(until_us)}")
    match rule.type:
        case "absence":
            return f"It fires if no {rule.names[-1]} comes{before}"
        case "temporal_ordered":
            return f"It fires if no {listed(sorted(rule.barred_last), 'or')} comes{before}"
        case "anomaly":
            return f"It is judged ({_above(rule)}) when the window closes{at}"
        case _:
            return f"It is judged ({rule.condition.text()}) when the window closes{at}"
