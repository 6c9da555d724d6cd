"""`bus.execution_at` and `bus.promote` against the gateway over ports in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from services.gateway.memory import Memory
from services.gateway.ports_promote import Promotion
from streams.bus.keeping import Keeping
from streams.bus.sql import Sql
from streams.errors import InvalidInput, NotFound, Unavailable
from streams.records import WorkflowTransition
from streams.settings import Settings

T0 = datetime(2026, 1, 1, tzinfo=UTC)


class Bus(Keeping):
    """Only this part of the bus."""

    def __init__(self, client: httpx.AsyncClient | None) -> None:
        self._sql = Sql(Settings(), client)


@pytest.fixture
def bus(http: httpx.AsyncClient) -> Bus:
    return Bus(http)


async def test_an_execution_as_it_was(bus: Bus, memory: Memory) -> None:
    memory.history.lag = 3
    running = WorkflowTransition(
        type="execution.started", execution_id="e/1 ä", workflow_id="w", status="running", sequence=1, time=T0 + timedelta(hours=1)
    )
    memory.keeping.stories["e/1 ä"] = [running, replace(running, status="completed", sequence=2, time=T0 + timedelta(hours=2))]
    found = await bus.execution_at("e/1 ä", T0 + timedelta(minutes=90), stale=True)
    assert (found["execution"]["status"], found["at"], found["behind"]) == ("running", "2026-01-01T01:30:00.000000Z", 3)
    found = await bus.execution_at("e/1 ä", "2026-01-01T04:00:00+01:00")
    assert (found["execution"]["status"], found["behind"]) == ("completed", 0)


@pytest.mark.parametrize("time", ["soon", datetime(2026, 1, 1)])
async def test_a_time_that_is_none_is_refused(bus: Bus, time: str | datetime) -> None:
    with pytest.raises(InvalidInput) as refused:
        await bus.execution_at("e", time)
    assert refused.value.code == "time.invalid"


async def test_an_execution_that_is_not_there(bus: Bus) -> None:
    with pytest.raises(NotFound) as refused:
        await bus.execution_at("nobody", T0)
    assert refused.value.code == "execution.unknown"


async def test_promoted_listed_and_demoted(bus: Bus, memory: Memory) -> None:
    report = await bus.promote("data.amount", type="Float64", why="asked often")
    assert (report["column"], report["created"]) == ("data_amount", True)
    assert memory.promotions.asked == [Promotion(path="data.amount", table="system_events", type="Float64", who="local", why="asked often")]
    assert [item["path"] for item in await bus.promoted()] == ["data.amount"]
    assert (await bus.demote("data.amount"))["column"] == "data_amount"
    assert await bus.promoted() == []
    with pytest.raises(NotFound) as refused:
        await bus.demote("data.amount")
    assert refused.value.code == "promote.unknown"


async def test_an_answer_that_breaks_off_is_no_report() -> None:
    answers = httpx.MockTransport(lambda _: httpx.Response(200, content=b'{"progress": {"phase": "type"}}\n'))
    async with httpx.AsyncClient(transport=answers) as client:
        with pytest.raises(Unavailable) as broken:
            await Bus(client).promote("data.amount")
    assert broken.value.code == "gateway.unreachable"
