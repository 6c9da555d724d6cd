"""The views say what happened: running executions, retries, time-outs, repairs, refused commands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from services.history.blocks import Span
from services.history.migrate import migrate
from services.history.store import History
from streams.codec.avro import Codec, SchemaIds
from streams.records import WorkflowTransition, from_micros
from streams.settings import Settings
from streams.topics import TRANSITIONS

T0 = from_micros(1_790_000_000_000_000)
CODEC = Codec(SchemaIds.local())


@pytest.fixture(scope="module")
async def history(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[History]:
    async with History(Settings(data_dir=tmp_path_factory.mktemp("views"))) as history:
        yield history


class Story:
    """Transitions of one execution, a second apart."""

    def __init__(self, execution_id: str) -> None:
        self.execution_id = execution_id
        self.records: list[WorkflowTransition] = []

    def then(self, type: str, status: Any = "running", *, step: str | None = None, attempt: int = 0, code: str = "", **more: int) -> Story:
        number = more.get("sequence", len(self.records) + 1)
        data = {"error": {"code": code, "message": "m", "retryable": False}} if code else {}
        self.records.append(
            WorkflowTransition(
                type=type, execution_id=self.execution_id, workflow_id="w", step_id=step, attempt=attempt, status=status, sequence=number,
                epoch=1, time=T0 + timedelta(seconds=number), data=data,
            )
        )  # fmt: skip
        return self


async def told(history: History, story: Story, *, partition: int) -> None:
    rows = [(offset, 1_790_000_000_000, CODEC.encode(record)[5:]) for offset, record in enumerate(story.records)]
    span = Span(topic=TRANSITIONS, partition=partition, first=0, end=len(rows))
    for _ in range(2):  # a repeated insert changes nothing
        await history.tables.insert(span, "workflow_transitions", rows, within_s=60)


async def execution(history: History, execution_id: str) -> list[dict[str, Any]]:
    return (await history.query("SELECT * FROM executions WHERE execution_id = {e:String}", {"e": execution_id})).objects()


async def steps(history: History, execution_id: str) -> list[tuple[Any, ...]]:
    columns = "step_id, attempt, status, duration_ms, error_code"
    result = await history.query(
        f"SELECT {columns} FROM steps WHERE execution_id = {{e:String}} ORDER BY step_id, attempt", {"e": execution_id}
    )
    return [tuple(row) for row in result.rows()]


async def test_a_completed_execution_with_a_retried_step(history: History) -> None:
    story = Story("done").then("execution.started").then("step.scheduled", step="a").then("step.started", step="a", attempt=1)
    story.then("step.retried", step="a", attempt=1, code="unavailable").then("step.started", step="a", attempt=2)
    story.then("step.retried", step="a", attempt=2, code="timeout").then("step.started", step="a", attempt=3)
    story.then("step.completed", step="a", attempt=3).then("step.skipped", step="b").then("execution.completed", "completed")
    await told(history, story, partition=0)
    (found,) = await execution(history, "done")
    assert (found["workflow_id"], found["status"], found["duration_ms"], found["failed_steps"]) == ("w", "completed", 9000, 0)
    assert (found["started_at"], found["ended_at"]) == ("2026-09-21T14:13:21.000000Z", "2026-09-21T14:13:30.000000Z")
    assert await steps(history, "done") == [
        ("a", 1, "failed", 1000, "unavailable"),
        ("a", 2, "timed_out", 1000, "timeout"),
        ("a", 3, "completed", 1000, None),
        ("b", 0, "skipped", None, None),
    ]


async def test_a_running_execution_has_no_end(history: History) -> None:
    await told(history, Story("live").then("execution.started").then("step.started", step="a", attempt=1), partition=1)
    (found,) = await execution(history, "live")
    assert (found["status"], found["ended_at"], found["duration_ms"], found["failed_steps"]) == ("running", None, None, 0)
    assert await steps(history, "live") == [("a", 1, "running", None, None)]


async def test_failed_steps_are_those_that_stayed_failed(history: History) -> None:
    story = Story("repaired").then("execution.started")
    for step in ("a", "b", "c"):
        story.then("step.started", step=step, attempt=1)
    story.then("step.failed", step="a", attempt=1, code="invalid").then("step.timed_out", step="b", attempt=1, code="timeout")
    story.then("step.completed", step="c", attempt=1).then("step.answered_late", step="b", attempt=1).then("execution.failed", "failed")
    failed = Story("failed")
    failed.records = [WorkflowTransition(**{**_fields(record), "execution_id": "failed"}) for record in story.records]
    await told(history, failed, partition=2)
    assert (await execution(history, "failed"))[0]["failed_steps"] == 2

    story.then("execution.retried").then("step.started", step="a", attempt=2).then("step.completed", step="a", attempt=2)
    await told(history, story, partition=3)
    (found,) = await execution(history, "repaired")
    assert (found["status"], found["ended_at"], found["failed_steps"]) == ("running", None, 1)
    assert await steps(history, "repaired") == [
        ("a", 1, "failed", 3000, "invalid"),
        ("a", 2, "completed", 1000, None),
        ("b", 1, "timed_out", 3000, "timeout"),
        ("c", 1, "completed", 3000, None),
    ]


def _fields(record: WorkflowTransition) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


async def test_refused_commands_neither_make_nor_change_an_execution(history: History) -> None:
    await told(history, Story("never").then("command.refused", "pending", sequence=0), partition=4)
    assert await execution(history, "never") == []
    story = Story("ended").then("execution.started").then("execution.cancelled", "cancelled").then("command.refused", "cancelled")
    await told(history, story, partition=5)
    (found,) = await execution(history, "ended")
    assert (found["status"], found["duration_ms"]) == ("cancelled", 1000)


async def test_rates_count_each_record_once(history: History) -> None:
    total = (await history.query("SELECT count() FROM workflow_transitions")).rows()
    assert (await history.query("SELECT sum(events) FROM event_rates WHERE topic = 'mplp.workflow.transitions'")).rows() == total


async def test_migrations_are_applied_once(history: History) -> None:
    assert await history._keeper.run(lambda client: migrate(client, history.database)) == []
