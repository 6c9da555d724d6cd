"""`workflow show --watch`: lines for pipes, a drawing for terminals, and an end in both."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator

import pytest
from rich.console import Console

from services.cli import workflow_show
from services.orchestrator.trial import run_trial
from streams.records import WorkflowTransition

TRIAL = run_trial({"id": "w", "name": "w", "steps": [{"id": "nap", "type": "wait", "for": "1h"}]}, {})


async def happening(*, ends: bool = True) -> AsyncIterator[WorkflowTransition]:
    for transition in TRIAL.transitions if ends else TRIAL.transitions[:4]:
        yield transition
    if not ends:
        await asyncio.Event().wait()


async def test_a_pipe_gets_a_line_for_each_transition(capsys: pytest.CaptureFixture[str]) -> None:
    await workflow_show._watch(happening(), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [transition.type for transition in TRIAL.transitions]


async def test_json_is_a_record_for_each_transition(capsys: pytest.CaptureFixture[str]) -> None:
    await workflow_show._watch(happening(), as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["type"], line["sequence"]) for line in lines] == [
        (transition.type, transition.sequence) for transition in TRIAL.transitions
    ]


async def test_a_terminal_is_drawn_on_and_keeps_the_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(workflow_show, "Console", lambda **_: Console(file=screen, force_terminal=True, width=100))
    await workflow_show._watch(happening(), as_json=False)
    assert "✔ completed after 1 h" in capsys.readouterr().out


async def test_an_interrupt_leaves_the_terminal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(workflow_show, "Console", lambda **_: Console(file=screen, force_terminal=True, width=100))
    watching = asyncio.create_task(workflow_show._watch(happening(ends=False), as_json=False))
    async with asyncio.timeout(20):
        while "waits for" not in screen.getvalue():
            await asyncio.sleep(0.01)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert "\x1b[?25l" in screen.getvalue()
    assert screen.getvalue().rfind("\x1b[?25h") > screen.getvalue().rfind("\x1b[?25l"), "the cursor is shown again"
