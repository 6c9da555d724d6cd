"""An execution as text that a person reads at a glance: a line per step, what went wrong below it, and what it waits for at the end."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

_SIGNS = {
    "completed": "✔", "failed": "✘", "timed_out": "✘", "cancelled": "⊘", "skipped": "↷",
    "running": "▶", "waiting": "⏸", "scheduled": "…", "pending": "·", "paused": "⏸",
}  # fmt: skip
#: Turns of one step that are shown one by one; of more only those that did not end well, at most as many.
TURNS_SHOWN = 5
#: Characters of a heartbeat's details that are shown.
DETAILS_CHARACTERS = 120
#: Field of a result that names what a module keeps, and how many of them are shown.
_MADE, MADE_SHOWN = re.compile(r"[a-z]\w*Id"), 20
_WELL = frozenset({"completed", "skipped"})
_NUMBER = re.compile(r"\[(\d+)\]")
_INDENT = " " * 17

Steps = Mapping[str, Mapping[str, Any]]


def milliseconds(value: float) -> str:
    """A span of time as people say it: `850 ms`, `12.4 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`."""
    if value < 1000:
        return f"{value:.0f} ms"
    if value < 60_000:
        return f"{value // 100 / 10:.1f} s"
    for name, unit, lower_name, lower in (("min", 60_000, "s", 1000), ("h", 3_600_000, "min", 60_000), ("d", 86_400_000, "h", 3_600_000)):
        if value < unit * (60 if name == "min" else 24) or name == "d":
            whole, rest = divmod(int(value), unit)
            return f"{whole} {name} {rest // lower} {lower_name}" if rest // lower else f"{whole} {name}"
    raise AssertionError("the last unit takes all")


def timeline(view: Mapping[str, Any], now: datetime | None = None) -> str:
    """The text for a view as `view.fold` gives it. With `now` it says how long things last and what is left."""
    if not view:
        return "There is no such execution."
    return "\n".join(_Timeline(view, now).lines())


class _Timeline:
    def __init__(self, view: Mapping[str, Any], now: datetime | None) -> None:
        self.view = view
        self.now = now
        self.start = datetime.fromisoformat(view["started_at"])
        self.steps: Steps = view["steps"]

    def lines(self) -> Iterator[str]:
        yield from self.head()
        if self.steps:
            yield ""
            yield from self.table()
        for section in (list(self.commands()), list(self.made()), list(self.waits()), list(self.end())):
            if section:
                yield ""
                yield from section

    def head(self) -> Iterator[str]:
        view = self.view
        version = f" {view['workflow_version']}" if view["workflow_version"] else ""
        yield f"{view['workflow_id']}{version}  {view['execution_id']}"
        took = f" after {milliseconds(view['duration_ms'])}" if view["duration_ms"] is not None else self.lasting()
        yield f"{_SIGNS.get(view['status'], '▶')} {view['status']}{took}, started {clock(self.start, None)}"

    def lasting(self) -> str:
        return f" for {self.span(self.now - self.start)}" if self.now is not None and self.view["status"] == "running" else ""

    # --- steps --------------------------------------------------------------------------------------------------------

    def table(self) -> Iterator[str]:
        shown = list(self.shown())
        name_width = max(len(label) for label, *_ in shown)
        what_width = max(len(_what(step)) for _, _, step, _ in shown if step is not None) if any(step for _, _, step, _ in shown) else 0
        for label, instance, step, more in shown:
            if step is None:
                yield f"{'':>13}    {label:<{name_width}}  {more}".rstrip()
                continue
            yield self.step_line(f"{_SIGNS.get(step['status'], '?')} {label:<{name_width}}", f"{_what(step):<{what_width}}", step, more)
            if instance:
                yield from self.details(step)

    def shown(self) -> Iterator[tuple[str, str, Mapping[str, Any] | None, str]]:
        """Lines of the table: label, instance (empty for a summary of turns), the step, and more to say."""
        turns: dict[str, list[str]] = {}
        for instance in self.steps:
            turns.setdefault(instance.split("[", 1)[0], []).append(instance)
        for name, instances in turns.items():
            if len(instances) <= TURNS_SHOWN:
                yield from ((instance, instance, self.steps[instance], "") for instance in instances)
                continue
            counts = Counter(self.steps[instance]["status"] for instance in instances)
            yield _range(name, instances), "", None, ", ".join(f"{count:,} {status}" for status, count in counts.most_common())
            special = [instance for instance in instances if self.steps[instance]["status"] not in _WELL]
            yield from ((instance, instance, self.steps[instance], "") for instance in special[:TURNS_SHOWN])
            if len(special) > TURNS_SHOWN:
                yield f"… and {len(special) - TURNS_SHOWN:,} more", "", None, ""

    def step_line(self, name: str, what: str, step: Mapping[str, Any], more: str) -> str:
        began = self.since_start(step["started_at"]) if step["started_at"] else "not begun"
        took = milliseconds(step["duration_ms"]) if step["duration_ms"] is not None else ""
        attempts = f"{step['attempts']} attempts" if step["attempts"] > 1 else ""
        status = "" if step["status"] == "completed" else step["status"]
        parts = [f"{began:>13}", name, what, f"{took:>10}"]
        return "  ".join([*parts, *(text for text in (status, attempts, more) if text)]).rstrip()

    def details(self, step: Mapping[str, Any]) -> Iterator[str]:
        for entry in step["history"]:
            said = self.said(entry)
            if said:
                yield _INDENT + said
        if "heartbeat" in step and step["status"] not in _WELL:
            yield _INDENT + self.beaten(step["heartbeat"])
        if step["status"] == "running" and "turns" in step:
            begun, ended, total = (step["turns"][name] for name in ("begun", "ended", "total"))
            yield f"{_INDENT}{ended:,}{'' if total is None else f' of {total:,}'} turns ended, {begun - ended:,} running"
        if step.get("child"):
            yield f"{_INDENT}runs {step['child']['workflow_id']}: mplp workflow show {step['child']['execution_id']}"

    def beaten(self, heartbeat: Mapping[str, Any]) -> str:
        """When a process last said that it works on the step, and how far it was."""
        details = heartbeat["details"]
        text = details if isinstance(details, str) else orjson.dumps(details).decode()
        far = "" if details is None else f": {text if len(text) <= DETAILS_CHARACTERS else text[:DETAILS_CHARACTERS] + '…'}"
        by = f" of {heartbeat['by']}" if heartbeat["by"] else ""
        return f"heartbeat{by} at {self.since_start(heartbeat['time'])}{far}"

    def said(self, entry: Mapping[str, Any]) -> str:
        """What a line of a step's history has to say; empty: the step's own line says it."""
        match entry["type"]:
            case "step.retried":
                return f"attempt {entry['attempt']} failed, again after {milliseconds(entry['delay_ms'])}: {_told(entry['error'])}"
            case "step.failed" | "step.timed_out":
                return _told(entry["error"])
            case "fallback.applied":
                return f"fallback {entry['action']}, since {_told(entry['error'])}"
            case "approval.requested":
                return f"asked at {self.since_start(entry['time'])}{': ' + str(entry['title']) if entry.get('title') else ''}"
            case "approval.answered":
                return f"{entry['by']} answered {entry['choice']} at {self.since_start(entry['time'])}{_why(entry)}"
            case "step.answered_late":
                return f"an answer to attempt {entry['attempt']} came late, at {self.since_start(entry['time'])}"
            case "compensation.completed":
                return f"undone at {self.since_start(entry['time'])}"
            case "compensation.failed":
                return f"could not be undone: {_told(entry['error'])}"
            case _:
                return ""

    # --- around the steps ---------------------------------------------------------------------------------------------

    def commands(self) -> Iterator[str]:
        for entry in self.view.get("commands", ()):
            who = f" by {entry['by']}" if entry.get("by") else ""
            what = entry["type"].partition(".")[2] if entry["type"] != "signal.received" else f"signal {entry.get('name', '')}"
            yield f"{self.since_start(entry['time']):>13}  {what}{who}{_why(entry)}"
        for entry in self.view["refused"]:
            yield f"{self.since_start(entry['time']):>13}  {entry.get('command', 'command')} refused: {_told(entry)}"

    def made(self) -> Iterator[str]:
        """What the steps have made in modules: ids in their results, each with the step that told it first."""
        found: dict[str, tuple[str, str]] = {}
        for name, step in self.steps.items():
            result = step["result"]
            for field, value in result.items() if isinstance(result, Mapping) else ():
                if _MADE.fullmatch(field) and isinstance(value, str) and "/" in value:
                    found.setdefault(value, (name, field))
        if not found:
            return
        yield "made"
        shown = list(found.items())[:MADE_SHOWN]
        width, field_width = (max(len(place[part]) for _, place in shown) for part in (0, 1))
        for id_, (name, field) in shown:
            yield f"  {name:<{width}}  {field:<{field_width}}  {id_}"
        if len(found) > len(shown):
            yield f"  … and {len(found) - len(shown):,} more"

    def waits(self) -> Iterator[str]:
        waiting = {name: step["waiting"] for name, step in self.steps.items() if step.get("waiting")}
        if not waiting:
            return
        yield "waits for"
        width = max(len(name) for name in list(waiting)[:TURNS_SHOWN])
        for name, wait in list(waiting.items())[:TURNS_SHOWN]:
            yield f"  {name:<{width}}  {_wanted(wait)}{self.until(wait)}"
            command = _command(self.view["execution_id"], name, wait)
            if command:
                yield f"  {'':<{width}}  {command}"
        if len(waiting) > TURNS_SHOWN:
            yield f"  … and {len(waiting) - TURNS_SHOWN:,} more steps wait"

    def until(self, wait: Mapping[str, Any]) -> str:
        if wait["until"] is None:
            return ""
        end = datetime.fromisoformat(wait["until"])
        word = {"timer": "", "retry": " at", "answer": ", at most until", "approval": ", until"}.get(wait["for"], ", until")
        if self.now is None:
            return f"{word} {self.since_start(wait['until'])}"
        left = f"in {self.span(end - self.now)}" if end > self.now else "now"
        return f"{word} {clock(end, self.now)} ({left})"

    def end(self) -> Iterator[str]:
        if self.view["error"]:
            yield f"error: {_told(self.view['error'])}"
        if self.view.get("compensated"):
            yield "compensated" if self.view["compensated"] is True else "compensated partly: see what could not be undone"

    def since_start(self, time: str) -> str:
        return f"+{self.span(datetime.fromisoformat(time) - self.start)}"

    def span(self, delta: Any) -> str:
        return milliseconds(max(0.0, delta.total_seconds() * 1000))


def clock(time: datetime, now: datetime | None) -> str:
    """A time of day in UTC, with the date unless it is `now`'s."""
    shown = time.astimezone(UTC)
    return shown.strftime("%H:%M:%SZ" if now is not None and shown.date() == now.astimezone(UTC).date() else "%Y-%m-%d %H:%M:%SZ")


def _wanted(wait: Mapping[str, Any]) -> str:
    match wait["for"]:
        case "approval":
            title = f" to {str(wait['title'])!r}" if wait.get("title") else ""
            given = wait.get("assignees")
            whom = f" of {', '.join(map(str, given)) if isinstance(given, list) else given}" if given else ""
            return f"an answer{whom}{title} ({', '.join(wait['choices'])})"
        case "timer":
            return "the time"
        case "retry":
            return f"attempt {wait['attempt']}"
        case "answer":
            return f"{wait['module']}.{wait['operation']}"
        case "place":
            return "a free place"
        case "workflow":
            return f"the workflow {wait['workflow_id']} ({wait['execution_id']})"
        case other:
            return f"the {other} {wait.get('name', '')}".rstrip()


def _command(execution_id: str, name: str, wait: Mapping[str, Any]) -> str:
    """What a person types to let it go on."""
    match wait["for"]:
        case "approval":
            return f"mplp workflow answer {execution_id} {name} --choice {wait['choices'][0]}"
        case "signal":
            return f"mplp workflow signal {execution_id} {wait.get('name', 'NAME')}"
        case _:
            return ""


def _what(step: Mapping[str, Any]) -> str:
    return f"{step['module']}.{step['operation']}" if step.get("module") else ""


def _told(error: Mapping[str, Any]) -> str:
    return f"{error.get('code')}: {error['message']}" if error.get("message") else str(error.get("code"))


def _why(entry: Mapping[str, Any]) -> str:
    return f": {entry['why']}" if entry.get("why") else ""


def _range(name: str, instances: list[str]) -> str:
    """The turns of a step in short: `review[0..9999]`."""
    numbers = [tuple(map(int, _NUMBER.findall(instance))) for instance in instances]
    spans = [(min(column), max(column)) for column in zip(*numbers, strict=True)]
    return name + "".join(f"[{low}..{high}]" if low != high else f"[{low}]" for low, high in spans)
