"""`/v1/history/at`, `/v1/history/erase`: what is asked of the kept history, and who may."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import httpx
import pytest

from services.gateway.memory import Memory
from services.gateway.ports_keeping import Erase
from streams.errors import Unavailable
from streams.records import WorkflowTransition

T0 = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def story(memory: Memory) -> None:
    memory.keeping.stories["e/1"] = [
        WorkflowTransition(
            type="execution.started", execution_id="e/1", workflow_id="w", status=status, sequence=number, time=T0 + timedelta(hours=number)
        )
        for number, status in ((1, "running"), (2, "completed"))
    ]


@pytest.mark.usefixtures("story")
async def test_an_execution_as_it_was(http: httpx.AsyncClient, memory: Memory) -> None:
    memory.history.lag = None
    answer = await http.get("/v1/history/at", params={"execution": "e/1", "time": "2026-01-01T03:30:00+02:00", "stale": True})
    assert answer.json() == {
        "at": "2026-01-01T01:30:00.000000Z", "behind": None, "execution": {"execution_id": "e/1", "status": "running"}, "steps": [],
    }  # fmt: skip
    memory.history.lag = 3
    answer = await http.get("/v1/history/at", params={"execution": "e/1"})
    assert (answer.json()["execution"]["status"], answer.json()["behind"]) == ("completed", 0), "it waits for the history, and looks at now"


@pytest.mark.usefixtures("story")
@pytest.mark.parametrize(
    ("execution", "time", "code"),
    [("nobody", "2026-01-01T00:00:00Z", "execution.unknown"), ("e/1", "2026-01-01T12:00:00", "parameter.invalid"),
     ("e/1", "soon", "parameter.invalid")],
)  # fmt: skip
async def test_what_cannot_be_told(http: httpx.AsyncClient, execution: str, time: str, code: str) -> None:
    answer = await http.get("/v1/history/at", params={"execution": execution, "time": time})
    assert (answer.status_code // 100, answer.json()["code"]) == (4, code)


async def test_who_erases_what_and_why(http: httpx.AsyncClient, memory: Memory) -> None:
    answer = await http.post("/v1/history/erase", json={"subject": "ann", "why": "asked to", "effects": True, "timeout": 5})
    assert (answer.status_code, answer.json()["subject"]) == (200, "ann")
    assert memory.keeping.asked == [Erase(subject="ann", who="local", why="asked to", effects=True, timeout_s=5)]


@pytest.mark.parametrize(
    "body", [{}, {"subject": "ann"}, {"subject": "", "why": "w"}, {"subject": "a", "why": ""}, {"subject": "a", "why": "w", "all": 1}]
)
async def test_an_erasure_says_whose_and_why(http: httpx.AsyncClient, memory: Memory, body: object) -> None:
    answer = await http.post("/v1/history/erase", json=body)
    assert (answer.status_code // 100, answer.json()["code"]) == (4, "body.invalid")
    assert memory.keeping.asked == []


async def test_days_and_files_of_an_export(http: httpx.AsyncClient, memory: Memory) -> None:
    memory.keeping.files["system_events"] = {date(2026, 1, day): b"PAR1" * day for day in (1, 2, 3)}
    assert (await http.get("/v1/history/export")).json() == {"tables": ["system_events"]}
    answer = await http.get("/v1/history/export/system_events", params={"from": "2026-01-02", "to": "2026-01-03"})
    assert answer.json() == {"table": "system_events", "behind": 0, "days": [{"day": "2026-01-02", "rows": 8}]}
    answer = await http.get("/v1/history/export/system_events", params={"to": "2026-01-02", "inclusive": True})
    assert [day["day"] for day in answer.json()["days"]] == ["2026-01-01", "2026-01-02"]
    answer = await http.get("/v1/history/export/system_events/2026-01-03")
    assert (answer.headers["content-type"], answer.content) == ("application/vnd.apache.parquet", b"PAR1" * 3)
    assert memory.keeping.closed == 1


@pytest.mark.parametrize(
    ("path", "code"),
    [("nothing", "table.unknown"), ("nothing/2026-01-01", "table.unknown"), ("system_events/soon", "parameter.invalid"),
     ("system_events?from=soon", "parameter.invalid")],
)  # fmt: skip
async def test_what_cannot_be_exported(http: httpx.AsyncClient, memory: Memory, path: str, code: str) -> None:
    memory.keeping.files["system_events"] = {}
    answer = await http.get(f"/v1/history/export/{path}")
    assert (answer.status_code // 100, answer.json()["code"]) == (4, code)


async def test_a_file_that_fails_in_the_middle_breaks_off_and_is_given_up(http: httpx.AsyncClient, memory: Memory) -> None:
    memory.keeping.files["system_events"] = {date(2026, 1, 1): b"PAR1" * 9}
    memory.keeping.failure = Unavailable("history.unavailable", "away")
    answer = await http.get("/v1/history/export/system_events/2026-01-01")  # a server breaks the connection here
    assert answer.content == b"PAR1" * 4 + b"PA"
    assert memory.keeping.closed == 1


async def test_lifetimes_are_shown_and_tried(http: httpx.AsyncClient, memory: Memory) -> None:
    memory.keeping.files["system_events"] = {}
    answer = await http.get("/v1/history/retention")
    assert answer.json() == {"tables": [{"table": "system_events", "wished": None, "in_force": None}]}
    answer = await http.get("/v1/history/retention", params={"try": "system_events=1d"})
    assert (answer.status_code, answer.json()["code"]) == (409, "retention.too-short")
