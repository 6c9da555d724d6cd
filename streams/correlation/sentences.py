"""What was seen and what the rule asks for, in words with the numbers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache

from streams.correlation.insights import seconds
from streams.correlation.rules import Rule, Step
from streams.correlation.seen import Found, Judged
from streams.durations import format_duration
from streams.records import FIRST_US, LAST_US, from_micros

#: Characters of an instant without the parts of a second.
_WHOLE_SECONDS = len("2026-01-05 09:00:00")


def instant(microseconds: int) -> datetime:
    """The instant; what lies before the year 1 or beyond 9999 is its first or last microsecond."""
    return from_micros(min(max(microseconds, FIRST_US), LAST_US))


def explanation(rule: Rule, group: Mapping[str, str], found: Found, *, retracted: bool = False) -> str:
    """One sentence: what was seen, and which condition it satisfies."""
    where = f" for {group_text(rule, group)}" if group else ""
    said = _said(rule, where, found)
    if found.suppressed:
        said += f"; {found.suppressed} more {'match was' if found.suppressed == 1 else 'matches were'} kept silent before"
    return f"No longer true after a later record: {said}." if retracted else f"{said}."


def _said(rule: Rule, where: str, found: Found) -> str:
    when = period(found.window_start_us, found.window_end_us)
    took = f"in {span(found.window_end_us - found.window_start_us)} ({when})" if found.window_end_us > found.window_start_us else when
    within = format_duration(rule.timespan_us // 1000)
    match rule.type:
        case "temporal":
            return f"{listed(rule.names, 'and')} all occurred{where} {took}; the rule asks for all of them within {within}"
        case "temporal_ordered" if rule.barred_last:
            none = f"and then no {listed(sorted(rule.barred_last), 'or')}"
            return f"{sequence(rule.steps)}, {none}{where} within {within} of the first ({when})"
        case "temporal_ordered":
            return f"{sequence(rule.steps)}{where} {took}; the rule asks for this order within {within}"
        case "absence":
            opened, answer = rule.names[0], rule.names[-1]
            waited = f"No further {opened}" if opened == answer else f"No {answer}"
            return f"{waited} followed {opened}{where} within {within} ({when})"
        case "anomaly" if found.judged is not None:
            at = f"({when})" if rule.timespan_us else f"at {moment(found.window_end_us)}"
            return f"{_measured(rule, found.judged, found.count)}{where} {at}; {_judged(rule, found.judged)}"
        case _:
            asked = f"the rule asks for {rule.condition.text()} {scope(rule)}"
            figured = figure(rule, found.value, found.count)
            return f"{figured[0].upper()}{figured[1:]}{where} {took}; {asked}"


def figure(rule: Rule, value: float, count: int) -> str:
    """The figure with the records that it comes from: `3 records of failed`, `the sum of data.amount is 12.5 over 3 records of paid`."""
    records = f"{count} {'record' if count == 1 else 'records'} of {listed(rule.names, 'or')}"
    field = rule.condition.field
    match rule.type:
        case "event_count":
            return records
        case "value_count":
            return f"{value:.15g} different {'value' if value == 1 else 'values'} of {field} in {records}"
        case "rate_change":
            mean = count / value if value else 0.0
            windows = rule.condition.baseline
            return f"{records}, {value:.3g} times the mean of the {windows} windows before ({mean:.3g}),"
        case "value_percentile":
            return f"the {rule.condition.percentile:g}th percentile of {field} is {value:.15g} over {records}"
        case _:
            name = {"value_sum": "sum", "value_avg": "mean", "value_min": "least", "value_max": "greatest"}[rule.type]
            return f"the {name} of {field} is {value:.15g} over {records}"


def _measured(rule: Rule, judged: Judged, count: int) -> str:
    field, records = rule.condition.field, f"{count} {'record' if count == 1 else 'records'} of {listed(rule.names, 'or')}"
    if field is None:
        return f"{records} in {format_duration(rule.timespan_us // 1000)}"
    return f"the mean of {field} is {judged.value:.6g} over {records}" if rule.timespan_us else f"{field} is {judged.value:.15g}"


def _judged(rule: Rule, judged: Judged) -> str:
    """The value against its history: `about 120 was expected, 100 to 140 is usual; it stands out by its level: score 0.9990, …`."""
    usual = f"about {judged.expected:.5g} was expected, {judged.low:.5g} to {judged.high:.5g} is usual"
    # As many digits as it takes to see that the score is above the threshold.
    score = next((text for digits in range(4, 17) if float(text := f"{judged.score:.{digits}f}") > _bound(rule)), repr(judged.score))
    return f"{usual}; it stands out by its {judged.kind}: score {score}, the rule asks for more than {_bound(rule):.15g}"


def _bound(rule: Rule) -> float:
    return rule.condition.threshold or 0.0


def scope(rule: Rule) -> str:
    """The window in words."""
    within = format_duration(rule.timespan_us // 1000)
    match rule.window:
        case "sliding":
            return f"within {within}"
        case "tumbling":
            return f"in a window of {within}"
        case "session":
            longest = f", of at most {within}" if rule.timespan_us else ""
            return f"in a session with gaps below {format_duration(rule.gap_us // 1000)}{longest}"


def sequence(steps: Sequence[Step]) -> str:
    """The steps in words: `login, then transfer with no mfa in between`, `failed 5 times, then success`."""
    runs: list[tuple[Step, int]] = []
    for step in steps:
        if runs and runs[-1][0].name == step.name and not step.barred:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((step, 1))
    return ", then ".join(
        step.name
        + (f" {times} times" if times > 1 else "")
        + (f" with no {listed(sorted(step.barred), 'or')} in between" if step.barred else "")
        for step, times in runs
    )


def moment(microseconds: int) -> str:
    """An instant for a person: `2026-01-05 09:00:00 UTC`, with as many digits behind the second as it has."""
    return f"{_clock(microseconds)} UTC"


@lru_cache(maxsize=1024)  # windows begin and end for many groups at once
def period(first_us: int, last_us: int) -> str:
    """`from 2026-01-05 09:00:00 to 09:00:52 UTC`, the day said once; `at …` if it is an instant."""
    first, last = _clock(first_us), _clock(last_us)
    if first == last:
        return f"at {first} UTC"
    return f"from {first} to {last.removeprefix(first[:11])} UTC"


def _clock(microseconds: int) -> str:
    text = instant(microseconds).isoformat(" ")[:-6]  # without the zone
    return text.rstrip("0") if len(text) > _WHOLE_SECONDS else text


def span(microseconds: int) -> str:
    """How long something took: `0.25 s`, `52 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if microseconds < 60_000_000:
        return seconds(microseconds)
    whole = microseconds // 1_000_000
    for unit, size, below, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    raise AssertionError(whole)


def ago(microseconds: int) -> str:
    """A span that need not be exact: `0.4 s`, `12 s`, `5 min`, `3 h`, `2 d`."""
    span = max(microseconds, 0) / 1_000_000
    for unit, size, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if span < size * most:
            return f"{span / size:.2g} {unit}" if span / size < 10 else f"{span / size:.0f} {unit}"
    return f"{span / 86400:.0f} d"


def listed(names: Sequence[str], last: str) -> str:
    """`a`, `a or b`, `a, b or c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def group_text(rule: Rule, group: Mapping[str, str]) -> str:
    """The group as a person reads it: `data.user=ann, data.shop=7`; empty without `group-by`."""
    return ", ".join(f"{name}={group[name]}" for name in rule.group_by)
