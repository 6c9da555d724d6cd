"""The timeline: what a person reads of an execution, and the drawing of a definition with the statuses of an execution."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from services.orchestrator.definitions import parse
from services.orchestrator.graph import draw
from services.orchestrator.store import AnyModule
from services.orchestrator.timeline import milliseconds, timeline
from services.orchestrator.trial import run_trial
from services.orchestrator.view import fold
from tests.unit.orchestrator.conftest import error, falling_back, operation, result, retrying, workflow


def view(*steps: dict[str, Any], **scenario: Any) -> dict[str, Any]:
    return fold(run_trial(workflow(*steps), scenario).transitions)


def lines(found: dict[str, Any], now: str | None = None) -> list[str]:
    return timeline(found, None if now is None else datetime.fromisoformat(now)).splitlines()


def test_attempts_and_what_went_wrong_stand_below_their_step() -> None:
    found = view(
        operation("a", error_handling=retrying(initial_interval="3s")),
        operation("b", "a", error_handling=falling_back({"condition": "error", "action": "use-value", "value": 1})),
        modules={"work.a": [error("unavailable", after="200ms"), result(after="1s")], "work.b": [error("broken")]},
    )
    assert lines(found) == [
        "w  test",
        "✔ completed after 4.2 s, started 2026-01-01 00:00:00Z",
        "",
        "        +0 ms  ✔ a  work.a       4.2 s  2 attempts",
        "                 attempt 1 failed, again after 3.0 s: unavailable: unavailable!",
        "       +4.2 s  ✔ b  work.b        0 ms",
        "                 fallback use-value, since broken: broken!",
    ]


def test_what_it_waits_for_now_and_until_when_is_told_at_the_end() -> None:
    steps = (
        {"id": "nap", "type": "wait", "for": "2h"},
        {"id": "ask", "type": "approval", "title": "Ship it?", "assignees": ["ann", "bob"], "deadline": "1d"},
        operation("try", timeout="1d", error_handling=retrying(max_retries=1, initial_interval="1h", max_interval="1h")),
        operation("slow", timeout="3h"),
    )
    at = [{"time": "1m", "resume": {}}]
    simulated = run_trial(workflow(*steps), {"modules": {"work.try": [error("unavailable")], "work.slow": ["never"]}, "at": at})
    # As it was when nothing had ended yet.
    early = fold(event for event in simulated.transitions if (event.time.day, event.time.hour) == (1, 0))
    told = lines(early, "2026-01-01T00:30:00+00:00")
    assert told[1] == "▶ running for 30 min, started 2026-01-01 00:00:00Z"
    assert told[told.index("waits for") + 1 :] == [
        "  nap   the time 02:00:00Z (in 1 h 30 min)",
        "  ask   an answer of ann, bob to 'Ship it?' (approve, reject), until 2026-01-02 00:00:00Z (in 23 h 30 min)",
        "        mplp workflow answer test ask --choice approve",
        "  try   attempt 2 at 01:00:00Z (in 30 min)",
        "  slow  work.slow, at most until 03:00:00Z (in 2 h 30 min)",
    ]
    assert [line.strip() for line in told if "refused" in line] == [
        "+1 min  resume refused: execution.wrong-state: resume is not possible: the execution is running."
    ]


def test_a_pause_moves_what_is_waited_for_and_while_it_lasts_nothing_has_an_end() -> None:
    nap = {"id": "nap", "type": "wait", "for": "2h"}
    paused = view(nap, at=[{"time": "1h", "pause": {"by": "ann", "why": "lunch"}}])
    assert paused["steps"]["nap"]["waiting"] == {"for": "timer", "until": None}
    assert "         +1 h  paused by ann: lunch" in lines(paused)
    trial = run_trial(workflow(nap), {"at": [{"time": "1h", "pause": {}}, {"time": "5h", "resume": {}}]})
    resumed = fold(event for event in trial.transitions if event.type not in ("timer.fired", "step.completed", "execution.completed"))
    assert resumed["steps"]["nap"]["waiting"] == {"for": "timer", "until": "2026-01-01T06:00:00.000000Z"}


def test_what_has_ended_waits_for_nothing() -> None:
    found = view({"id": "ask", "type": "approval"}, at=[{"time": "1h", "answer": {"step": "ask", "choice": "approve", "by": "ann"}}])
    assert "waiting" not in found["steps"]["ask"]
    assert "                 ann answered approve at +1 h" in lines(found)


def test_many_turns_are_one_line_and_those_that_went_wrong() -> None:
    each = {"id": "all", "type": "foreach", "items": list(range(9)), "steps": [operation("look")]}
    found = view(each, modules={"work.look": [result(), error("broken"), result()]})
    told = lines(found)
    assert "                 look[0..8]  8 completed, 1 failed" in told
    assert sum("look[" in line for line in told) == 2
    few = view({**each, "items": [1, 2]})
    assert sum("look[" in line for line in lines(few)) == 2


def test_compensation_is_told_where_it_undoes() -> None:
    undo = {"type": "module-operation", "module": "work", "operation": "undo"}
    found = view(
        operation("a", compensation=undo), operation("c", compensation=undo), operation("b", "a", "c"),
        modules={"work.b": [error("broken")], "work.undo": [result(after="1s"), error("odd")]},
    )  # fmt: skip
    told = [line.strip() for line in lines(found)]
    assert "undone at +1.0 s" in told
    assert "could not be undone: odd: odd!" in told
    assert told[-2:] == ["error: broken: broken!", "compensated partly: see what could not be undone"]


def test_spans_are_rounded_down() -> None:
    spans = {0: "0 ms", 999: "999 ms", 1999: "1.9 s", 59_999: "59.9 s", 60_000: "1 min", 200_000: "3 min 20 s", 90_061_000: "1 d 1 h"}
    assert {value: milliseconds(value) for value in spans} == spans


def test_steps_are_coloured_by_their_status_and_turns_by_the_one_that_says_most() -> None:
    document = workflow({"id": "all", "type": "foreach", "items": [1], "steps": [operation("look")]}, operation("later", "all"))
    definition = parse(document, AnyModule())
    statuses = {"all": "running", "look[0]": "completed", "look[1]": "failed"}
    mermaid = draw(definition, "mermaid", statuses)
    assert '    s1["look<br/>work.look"]:::failed' in mermaid.splitlines()
    assert '  s2["later<br/>work.later"]:::pending' in mermaid.splitlines()
    assert "  classDef failed fill:#f4a6a0,color:#000" in mermaid.splitlines()
    assert 'fillcolor="#a9cdf0", tooltip=running' in draw(definition, "dot", statuses)
    assert ":::" not in draw(definition, "mermaid")
    assert '  subgraph s0_box["all: for each item"]' in draw(definition, "mermaid").splitlines()


def test_what_was_made_is_told_once_with_the_step_that_made_it() -> None:
    made, used = {"planId": "e/plan-1", "contextId": "e/context-1", "name": "x"}, {"planId": "e/plan-1", "orderId": "order-7"}
    found = view(operation("a"), operation("longer", "a"), modules={"work.a": [result(made)], "work.longer": [result(used)]})
    assert lines(found)[-4:] == ["", "made", "  a  planId     e/plan-1", "  a  contextId  e/context-1"]
