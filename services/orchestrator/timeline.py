"""An execution as text that a person reads at a glance: one line per step, what went wrong below it, what it waits for at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

_SIGNS = {
    "completed": "✔", "failed": "✘", "timed_out": "✘", "cancelled": "⊘", "skipped": "↷",
    "running": "▶", "waiting": "⏸", "scheduled": "…", "pending": "·",
}  # fmt: skip


def milliseconds(value: float) -> str:
    """A span of time as people say it: `850 ms`, `12.4 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`."""
    if value < 1000:
        return f"{value:.0f} ms"
    if value < 60_000:
        return f"{value / 1000:.1f} s"
    for name, unit, lower_name, lower in (("min", 60_000, "s", 1000), ("h", 3_600_000, "min", 60_000), ("d", 86_400_000, "h", 3_600_000)):
        if value < unit * (60 if name == "min" else 24) or name == "d":
            whole, rest = divmod(int(value), unit)
            return f"{whole} {name} {rest // lower} {lower_name}" if rest // lower else f"{whole} {name}"
    raise AssertionError("the last unit takes all")


def timeline(view: Mapping[str, Any]) -> str:
    """The text for a view as `view.fold` gives it."""
    if not view:
        return "There is no such execution."
    return "\n".join(_lines(view))


def _lines(view: Mapping[str, Any]) -> Iterator[str]:
    version = f" {view['workflow_version']}" if view["workflow_version"] else ""
    took = f" after {milliseconds(view['duration_ms'])}" if view["duration_ms"] is not None else ""
    yield f"{view['workflow_id']}{version}  {view['execution_id']}"
    yield f"{_SIGNS.get(view['status'], '▶')} {view['status']}{took}, started {view['started_at']}"
    steps = list(view["steps"].items())
    if steps:
        yield ""
        width = max(len(name) for name, _ in steps)
        what_width = max(len(_what(step)) for _, step in steps)
        for name, step in steps:
            yield _step_line(view, name, step, width, what_width)
            yield from _details(view, name, step)
    if view["error"]:
        yield ""
        yield f"error: {view['error'].get('code')}: {view['error'].get('message')}"
    if view.get("compensated"):
        yield "compensated" if view["compensated"] is True else "compensated partly"


def _what(step: Mapping[str, Any]) -> str:
    return f"{step['module']}.{step['operation']}" if step.get("module") else ""


def _step_line(view: Mapping[str, Any], name: str, step: Mapping[str, Any], width: int, what_width: int) -> str:
    began = _since_start(view, step["started_at"]) if step["started_at"] else "not begun"
    took = milliseconds(step["duration_ms"]) if step["duration_ms"] is not None else ""
    attempts = f"{step['attempts']} attempts" if step["attempts"] > 1 else ""
    status = "" if step["status"] == "completed" else step["status"]
    parts = [f"{began:>14}", f"{_SIGNS.get(step['status'], '?')} {name:<{width}}", f"{_what(step):<{what_width}}", f"{took:>10}"]
    return "  ".join([*parts, *(text for text in (status, attempts) if text)]).rstrip()


def _details(view: Mapping[str, Any], name: str, step: Mapping[str, Any]) -> Iterator[str]:
    indent = " " * 18
    for entry in step["history"]:
        match entry["type"]:
            case "step.retried":
                error = entry["error"]
                pause = milliseconds(entry["delay_ms"])
                yield f"{indent}attempt {entry['attempt']} failed, again after {pause}: {error['code']}: {error['message']}"
            case "step.failed" | "step.timed_out":
                yield f"{indent}{entry['error']['code']}: {entry['error']['message']}"
            case "fallback.applied":
                yield f"{indent}fallback {entry['action']}, since {entry['error']['code']}: {entry['error']['message']}"
            case "approval.answered":
                why = f": {entry['why']}" if entry.get("why") else ""
                yield f"{indent}{entry['by']} answered {entry['choice']} at {_since_start(view, entry['time'])}{why}"
            case "step.answered_late":
                yield f"{indent}an answer to attempt {entry['attempt']} came late, at {_since_start(view, entry['time'])}"
            case "compensation.completed":
                yield f"{indent}undone at {_since_start(view, entry['time'])}"
            case "compensation.failed":
                yield f"{indent}could not be undone: {entry['error']['code']}: {entry['error']['message']}"
            case "timer.set" if step["status"] == "waiting":
                yield f"{indent}waits until {_since_start(view, entry['due_us'])}"
            case _:
                pass
    if step["status"] == "running" and "turns" in step:
        begun, ended, total = (step["turns"][name] for name in ("begun", "ended", "total"))
        yield f"{indent}{ended}{'' if total is None else f' of {total}'} turns ended, {begun - ended} running"
    if step["status"] == "running" and "child" in step:
        yield f"{indent}waits for the workflow {step['child']['workflow_id']}: mplp workflow show {step['child']['execution_id']}"
    if step["status"] == "waiting" and "signal" in step.get("waiting", {}):
        yield f"{indent}waits for the signal {step['waiting']['signal']}"
        yield f"{indent}mplp workflow signal {view['execution_id']} {step['waiting']['signal']} --data …"
    elif step["status"] == "waiting" and "waiting" in step:
        choices = ", ".join(step["waiting"]["choices"])
        title = step["waiting"].get("title")
        yield f"{indent}waits for an answer ({choices}){': ' + str(title) if title else ''}"
        yield f"{indent}mplp workflow answer {view['execution_id']} {name} --choice … --by …"


def _since_start(view: Mapping[str, Any], time: str | int) -> str:
    start = datetime.fromisoformat(view["started_at"])
    then = time / 1e6 if isinstance(time, int) else datetime.fromisoformat(time).timestamp()
    return f"+{milliseconds((then - start.timestamp()) * 1000)}"
