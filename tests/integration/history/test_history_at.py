"""An execution at an instant, from the tables: the same as the fold of its log up to there, at every instant of random executions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from services.history.at import PAGE, transitions_at
from services.history.blocks import Span
from services.history.erase_rows import ERASED_DATA
from services.history.store import History
from services.orchestrator.view import fold
from streams.codec.avro import Codec, SchemaIds
from streams.errors import NotFound, Refused
from streams.records import WorkflowTransition, from_micros, iso
from streams.settings import Settings
from streams.topics import TRANSITIONS
from tests.workloads.cases import draw, run_to_the_end, simulate

CODEC = Codec(SchemaIds.local())
T0 = from_micros(1_790_000_000_000_000)
SEEDS = range(900, 908)
#: Instants of one execution that are looked at; the first and the last are always among them.
INSTANTS = 8


@pytest.fixture(scope="module")
async def history(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[History]:
    async with History(Settings(data_dir=tmp_path_factory.mktemp("at"))) as history:
        yield history


async def put(history: History, events: Sequence[WorkflowTransition], *, partition: int, first: int = 0) -> None:
    rows = [(first + number, 1_790_000_000_000, CODEC.encode(event)[5:]) for number, event in enumerate(events)]
    span = Span(topic=TRANSITIONS, partition=partition, first=first, end=first + len(rows))
    await history.tables.insert(span, "workflow_transitions", rows, within_s=60)


def told(seed: int) -> list[WorkflowTransition]:
    """The whole log of a random case: the execution and its children, under names of their own."""
    case = draw(Random(seed))
    simulation = simulate(case, checked=False)
    for _ in run_to_the_end(simulation, case.random):
        pass
    return [replace(event, execution_id=f"{seed}-{event.execution_id}") for event in simulation.runner.events()]


def instants(events: Sequence[WorkflowTransition], random: Random) -> list[datetime]:
    times = sorted({event.time for event in events})
    chosen = {times[0], times[-1], *random.sample(times, min(len(times), INSTANTS - 2))}
    return sorted(chosen | {time + timedelta(microseconds=1) for time in list(chosen)[:2]})


@pytest.mark.parametrize("seed", SEEDS)
async def test_tables_say_at_every_instant_what_the_log_says(history: History, seed: int) -> None:
    events, random = told(seed), Random(seed)
    await put(history, events, partition=seed)
    names = sorted({event.execution_id for event in events if event.sequence})
    for at in instants(events, random):
        views = {name: fold(event for event in events if event.execution_id == name and event.time <= at) for name in names}
        for name, view in views.items():
            if view:
                assert fold(await transitions_at(history, name, at)) == view
            else:
                with pytest.raises(NotFound, match=r"execution\.not-begun"):
                    await transitions_at(history, name, at)
        assert await by_views(history, at, seed) == {name: shown(view) for name, view in views.items() if view}, f"at {iso(at)}"


async def by_views(history: History, at: datetime, seed: int) -> dict[str, Any]:
    parameters = {"at": iso(at), "like": f"{seed}-%"}
    executions = "SELECT execution_id, status, ended_at FROM executions_at(at = {at:String}) WHERE execution_id LIKE {like:String}"
    columns = "execution_id, step_id, status, attempts, error_code"
    steps = f"SELECT {columns} FROM steps_at(at = {{at:String}}) WHERE execution_id LIKE {{like:String}}"
    found: dict[str, Any] = {}
    for execution_id, status, ended_at in (await history.query(executions, parameters)).rows():
        found[execution_id] = (status, ended_at, {})
    for execution_id, step_id, *rest in (await history.query(steps, parameters)).rows():
        found[execution_id][2][step_id] = tuple(rest)
    return found


def shown(view: dict[str, Any]) -> Any:
    steps = {
        name: (step["status"], step["attempts"], None if step["error"] is None else step["error"]["code"])
        for name, step in view["steps"].items()
    }
    return view["status"], view["ended_at"], steps


def life(name: str, types: Sequence[str]) -> list[WorkflowTransition]:
    return [
        WorkflowTransition(
            type=type, execution_id=name, workflow_id="w", status="running", aggregate_id=name, sequence=number, epoch=1,
            time=T0 + timedelta(seconds=number),
            data={"input": {}, "definition_hash": "h"} if number == 1 else {"name": "s", "data": number},
        )
        for number, type in enumerate(types, 1)
    ]  # fmt: skip


async def test_one_that_never_was(history: History) -> None:
    with pytest.raises(NotFound, match=r"execution\.unknown"):
        await transitions_at(history, "never' OR '1", T0)


async def test_a_long_one_is_read_by_pages(history: History) -> None:
    await put(history, life("long", ["execution.started", *["signal.received"] * (PAGE + 5)]), partition=1)
    found = await transitions_at(history, "long", T0 + timedelta(days=1))
    assert [transition.sequence for transition in found] == list(range(1, PAGE + 7))


async def test_one_whose_beginning_is_gone(history: History) -> None:
    await put(history, life("cut", ["execution.started", "signal.received", "signal.received"])[1:], partition=2)
    with pytest.raises(Refused, match=r"history\.beyond-retention"):
        await transitions_at(history, "cut", T0 + timedelta(days=1))


async def test_one_whose_payloads_were_erased_is_told_up_to_there(history: History) -> None:
    await put(history, life("erased", ["execution.started", "signal.received", "signal.received"]), partition=3)
    statement = f"ALTER TABLE workflow_transitions UPDATE data_text = '{ERASED_DATA}' WHERE execution_id = 'erased' AND sequence = 2"
    await history._keeper.run(lambda client: client.command(f"{statement} SETTINGS mutations_sync = 2"))
    assert len(await transitions_at(history, "erased", T0 + timedelta(seconds=1))) == 1
    with pytest.raises(Refused, match=r"history\.erased.*from 2026-09-21T14:13:22"):
        await transitions_at(history, "erased", T0 + timedelta(days=1))
