"""Each noun over HTTP: what it answers, and with which code it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import orjson
import pytest

from services.gateway.memory import Memory, MemoryRows
from services.gateway.ports import Check, Item
from streams.errors import Unavailable

DEFINITION = {"id": "w", "steps": [{"id": "a"}]}


def problem(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a problem document, after checking that it is one."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body = response.json()
    assert body["status"] == response.status_code
    assert body["type"] == f"urn:mplp:error:{body['code']}"
    assert body["title"]
    assert body["detail"]
    return response.status_code, body["code"]


class TestExecutions:
    async def test_a_start_is_answered_with_where_the_execution_is(self, http: httpx.AsyncClient) -> None:
        started = await http.post("/v1/executions", json={"definition": DEFINITION, "id": "e-1"})
        assert started.status_code == 201
        assert started.json() == {"execution_id": "e-1", "status": "running"}
        shown = await http.get(started.headers["location"])
        assert shown.json()["execution_id"] == "e-1"

    @pytest.mark.parametrize(("wait", "status"), [(False, "running"), (0, "running"), (True, "completed"), (1.5, "completed")])
    async def test_a_start_waits_if_asked_to(self, http: httpx.AsyncClient, wait: object, status: str) -> None:
        started = await http.post("/v1/executions", json={"definition": DEFINITION, "id": "e-1", "wait": wait})
        assert (started.status_code, started.json()["status"]) == (201, status)

    @pytest.mark.parametrize("wait", [-1, 301, "soon", None])
    async def test_a_wait_without_sense_is_refused(self, http: httpx.AsyncClient, wait: object) -> None:
        assert problem(await http.post("/v1/executions", json={"definition": DEFINITION, "wait": wait})) == (422, "body.invalid")

    @pytest.mark.parametrize("execution_id", ["Überweisung", "日本", "a b?c#d%", "🙂", ".."])
    async def test_an_id_of_any_letters_is_found_where_the_answer_says(self, http: httpx.AsyncClient, execution_id: str) -> None:
        started = await http.post("/v1/executions", json={"definition": DEFINITION, "id": execution_id})
        assert started.json()["execution_id"] == execution_id
        if execution_id != "..":  # clients take it for a step up
            assert (await http.get(started.headers["location"])).json()["execution_id"] == execution_id

    async def test_a_second_start_with_the_same_key_gives_the_first_execution(self, http: httpx.AsyncClient, memory: Memory) -> None:
        first = await http.post("/v1/executions", json={"definition": DEFINITION, "idempotency_key": "k"})
        second = await http.post("/v1/executions", json={"definition": DEFINITION}, headers={"Idempotency-Key": "k"})
        assert first.json()["execution_id"] == second.json()["execution_id"]
        assert len(memory.executions.log) == 1

    async def test_all_faults_of_a_definition_are_named(self, http: httpx.AsyncClient, memory: Memory) -> None:
        refused = await http.post("/v1/executions", json={"definition": {"id": "w"}})
        assert problem(refused) == (422, "definition.invalid")
        assert refused.json()["faults"] == [{"code": "definition.no-steps", "pointer": "/steps", "message": "A workflow has steps."}]
        assert memory.executions.log == {}

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({}, "body.invalid"),
            ({"definition": DEFINITION, "workflow": "w"}, "body.invalid"),
            ({"definition": []}, "body.invalid"),
            ({"definition": DEFINITION, "inputs": {}}, "body.invalid"),
            ({"definition": DEFINITION, "id": "a/b"}, "body.invalid"),
            ({"definition": DEFINITION, "id": "a\x00"}, "body.invalid"),
            ({"definition": DEFINITION, "id": "x" * 201}, "body.invalid"),
            ([], "body.invalid"),
        ],
    )
    async def test_what_is_no_start_is_refused(self, http: httpx.AsyncClient, body: object, code: str) -> None:
        assert problem(await http.post("/v1/executions", json=body))[1] == code

    async def test_an_unknown_execution_is_not_found(self, http: httpx.AsyncClient) -> None:
        for path in ("/v1/executions/nope", "/v1/executions/nope/transitions"):
            assert problem(await http.get(path)) == (404, "execution.unknown")

    async def test_a_refused_command_does_not_make_an_execution_known(self, http: httpx.AsyncClient, memory: Memory) -> None:
        # given a command to nobody, whose refusal is on record under that id
        memory.executions.record("nope", "command.refused", "pending", sequence=0)
        # when it is asked for, then nothing is there
        for path in ("", "/state", "/transitions"):
            assert problem(await http.get(f"/v1/executions/nope{path}")) == (404, "execution.unknown")

    async def test_a_command_gives_the_transition_and_a_refusal_its_code(self, http: httpx.AsyncClient) -> None:
        await http.post("/v1/executions", json={"definition": DEFINITION, "id": "e"})
        done = await http.post("/v1/executions/e/cancel", json={"why": "enough"})
        assert (done.status_code, done.json()["status"]) == (200, "cancelled")
        assert done.json()["transition"]["data"] == {"by": "local", "why": "enough"}
        assert problem(await http.post("/v1/executions/e/cancel")) == (409, "execution.wrong-state")
        assert problem(await http.post("/v1/executions/e/explode"))[0] == 422
        assert problem(await http.post("/v1/executions/e/cancel", json=[1])) == (400, "body.invalid")

    async def test_transitions_come_by_the_page_each_once_in_order(self, http: httpx.AsyncClient, memory: Memory) -> None:
        for _ in range(5):
            memory.executions.record("e", "step.completed", "running")
        sequences, cursor = [], None
        while True:
            page = (await http.get("/v1/executions/e/transitions", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
            sequences += [item["sequence"] for item in page["items"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert sequences == [1, 2, 3, 4, 5]

    async def test_the_list_asks_the_history_with_parameters_and_goes_on_where_it_ended(
        self, http: httpx.AsyncClient, memory: Memory
    ) -> None:
        rows = [{"execution_id": f"e{n}", "started_at": datetime(2026, 1, 1, tzinfo=UTC), "started_micros": n} for n in (3, 2, 1)]
        memory.history.answer = lambda sql, parameters: MemoryRows(rows, 2)
        first = await http.get("/v1/executions", params={"limit": 2, "status": "running", "workflow": "'; DROP"})
        assert [item["execution_id"] for item in first.json()["items"]] == ["e3", "e2"]
        assert first.json()["items"][0]["started_at"] == "2026-01-01T00:00:00.000000Z"
        await http.get("/v1/executions", params={"cursor": first.json()["next"]})
        sql, parameters = memory.history.asked[0]
        assert "DROP" not in sql
        assert parameters == {"limit": 3, "status": "running", "workflow": "'; DROP"}
        assert memory.history.asked[1][1] == {"limit": 101, "micros": 2, "last_id": "e2"}
        assert all(rows.closed for rows in memory.history.given)

    @pytest.mark.parametrize("cursor", ["", "x", "bnVsbA", "W10", "WyJhIl0", "ö", "W" * 2000, "WzEsMl0="])
    async def test_a_cursor_that_no_list_gave_is_refused(self, http: httpx.AsyncClient, cursor: str) -> None:
        assert problem(await http.get("/v1/executions", params={"cursor": cursor})) == (400, "cursor.invalid")


class TestEvents:
    async def test_one_an_array_and_lines_are_taken(self, http: httpx.AsyncClient, memory: Memory) -> None:
        one = await http.post("/v1/events", json={"type": "order.paid", "subject": "o"})
        array = await http.post("/v1/events", json=[{"type": "a"}, {"type": "b"}])
        lines = await http.post("/v1/events", content=b'{"type":"c"}\n\r\n{"type":"d"}\n', headers={"Content-Type": "application/x-ndjson"})
        assert [(answer.status_code, answer.json()["accepted"]) for answer in (one, array, lines)] == [(200, 1), (200, 2), (200, 2)]
        assert [event.type for event in memory.published] == ["order.paid", "a", "b", "c", "d"]

    async def test_the_good_ones_are_kept_and_the_others_named(self, http: httpx.AsyncClient, memory: Memory) -> None:
        body = b'{"type":"a"}\n{broken\n[1]\n{"type":"b","nope":1}\n{"type":"c"}'
        answer = await http.post("/v1/events", content=body, headers={"Content-Type": "application/x-ndjson"})
        assert answer.status_code == 207
        assert answer.json()["accepted"] == 2
        assert [(fault["line"], fault["code"]) for fault in answer.json()["rejected"]] == [
            (2, "json.invalid"), (3, "event.not-object"), (4, "field.unknown"),
        ]  # fmt: skip
        assert [event.type for event in memory.published] == ["a", "c"]

    async def test_none_accepted_is_a_problem(self, http: httpx.AsyncClient, memory: Memory) -> None:
        refused = await http.post("/v1/events", json=[1, {"type": ""}])
        assert problem(refused) == (422, "events.rejected")
        assert [fault["index"] for fault in refused.json()["rejected"]] == [0, 1]
        assert memory.published == []

    async def test_an_empty_array_is_nothing(self, http: httpx.AsyncClient) -> None:
        assert (await http.post("/v1/events", json=[])).json() == {"accepted": 0, "rejected": []}


class TestStream:
    async def test_records_come_with_their_place(self, http: httpx.AsyncClient, memory: Memory) -> None:
        memory.live.items = [Item(id="mplp.system.events/0/7", record={"type": "a", "data": "line\nbreak"})]
        answer = await http.get("/v1/stream", params={"filter": "type == 'a'", "from": "beginning"})
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "id: mplp.system.events/0/7\r\n" in answer.text
        (data,) = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        assert orjson.loads(data) == {"type": "a", "data": "line\nbreak"}
        assert memory.live.asked == [
            {"topic": "mplp.system.events", "since": "beginning", "where": "type == 'a'", "type": None, "source": None}
        ]
        assert memory.live.closed == 1

    @pytest.mark.parametrize(
        ("parameters", "expected"),
        [
            ({"filter": "((("}, (400, "expression.invalid")),
            ({"from": "yesterday"}, (400, "since.invalid")),
            ({"from": "2026-01-01T00:00:00"}, (400, "since.invalid")),
            ({"topic": "nope"}, (404, "topic.unknown")),
            ({"filter": "a" * 5000}, (422, "parameter.invalid")),
        ],
    )
    async def test_a_stream_that_cannot_be_is_refused_before_it_begins(
        self, http: httpx.AsyncClient, parameters: dict[str, str], expected: tuple[int, str]
    ) -> None:
        assert problem(await http.get("/v1/stream", params=parameters)) == expected


class TestQuery:
    @pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
    async def test_rows_come_as_one_array(self, http: httpx.AsyncClient, memory: Memory, count: int) -> None:
        rows = [{"n": n, "t": datetime(2026, 1, 1, 0, 0, n, tzinfo=UTC)} for n in range(count)]
        memory.history.answer = lambda sql, parameters: MemoryRows(rows, 2)
        memory.history.lag = 12
        answer = await http.post("/v1/query", json={"sql": "SELECT {n:Int8}", "parameters": {"n": 1}})
        assert [row["n"] for row in answer.json()] == list(range(count))
        assert answer.headers["x-mplp-behind"] == "0"
        assert memory.history.asked == [("SELECT {n:Int8}", {"n": 1})]
        assert memory.history.given[0].closed

    async def test_a_stale_answer_says_how_far_it_is_behind(self, http: httpx.AsyncClient, memory: Memory) -> None:
        memory.history.lag = 12
        answer = await http.post("/v1/query", json={"sql": "SELECT 1", "stale": True})
        assert answer.headers["x-mplp-behind"] == "12"

    async def test_a_failure_in_the_first_batch_is_a_problem_and_closes_the_query(self, http: httpx.AsyncClient, memory: Memory) -> None:
        memory.history.answer = lambda sql, parameters: MemoryRows([{"n": 1}], 1, fails_after=0)
        assert problem(await http.post("/v1/query", json={"sql": "SELECT 1"})) == (400, "query.failed")
        assert memory.history.given[0].closed

    async def test_a_failure_in_the_middle_never_looks_like_a_whole_answer(
        self, memory: Memory, client_of: Callable[..., httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("services.gateway.query.HELD_BYTES", 1)
        memory.history.answer = lambda sql, parameters: MemoryRows([{"n": n} for n in range(4)], 1, fails_after=2)
        async with client_of(memory) as client:
            answer = await client.post("/v1/query", json={"sql": "SELECT 1"})
        with pytest.raises(ValueError, match=r"unexpected|Expecting|delimiter"):
            answer.json()
        assert memory.history.given[0].closed


class TestRulesAndModules:
    async def test_a_rule_is_applied_listed_shown_and_deleted(self, http: httpx.AsyncClient, memory: Memory) -> None:
        applied = await http.post("/v1/rules?why=trial", json={"id": "r1"})
        assert applied.json()["applied"] == ["r1"]
        two = await http.post("/v1/rules", content=b"id: r2\n---\nid: r3\n", headers={"Content-Type": "application/yaml"})
        assert two.json()["applied"] == ["r2", "r3"]
        page = (await http.get("/v1/rules?limit=2")).json()
        assert [rule["id"] for rule in page["items"]] == ["r1", "r2"]
        rest = (await http.get("/v1/rules", params={"cursor": page["next"]})).json()
        assert ([rule["id"] for rule in rest["items"]], rest["next"]) == (["r3"], None)
        assert (await http.get("/v1/rules/r1")).json() == {"id": "r1"}
        assert (await http.delete("/v1/rules/r1")).json() == {"deleted": "r1"}
        assert problem(await http.get("/v1/rules/r1")) == (404, "rule.unknown")
        assert problem(await http.delete("/v1/rules/r1")) == (404, "rule.unknown")
        assert memory.rules.changes[0] == ("r1", "local", "trial")

    async def test_every_version_of_a_rule_is_kept_and_a_change_is_shown_first(self, http: httpx.AsyncClient, memory: Memory) -> None:
        for title in ("one", "two"):
            await http.post("/v1/rules", json={"id": "r1", "title": title})
        planned = (await http.post("/v1/rules?dry_run=true", json={"id": "r1"})).json()
        assert planned == {"rules": [{"id": "r1", "version": 3}]}
        assert [version["rule"]["title"] for version in (await http.get("/v1/rules/r1/history")).json()["items"]] == ["one", "two"]
        assert (await http.get("/v1/rules/r1?version=1")).json()["rule"]["title"] == "one"
        assert problem(await http.get("/v1/rules/r1?version=3")) == (404, "rule.version-unknown")
        assert problem(await http.get("/v1/rules/other/history")) == (404, "rule.unknown")
        assert len(memory.rules.changes) == 2

    async def test_how_a_group_stands_is_asked_by_name_and_value(self, http: httpx.AsyncClient, memory: Memory) -> None:
        await http.post("/v1/rules", json={"id": "r1"})
        found = await http.get("/v1/rules/r1/explain", params={"group": ["data.user=a=b", "data.shop=7"]})
        assert found.json() == {"rule_id": "r1", "group": {"data.user": "a=b", "data.shop": "7"}}
        assert (await http.get("/v1/rules/r1/explain")).json()["group"] == {}
        for wrong in (["data.user"], ["=x"], ["a=1", "a=2"]):
            assert problem(await http.get("/v1/rules/r1/explain", params={"group": wrong})) == (400, "group.invalid")
        assert problem(await http.get("/v1/rules/other/explain")) == (404, "rule.unknown")

    async def test_large_answers_come_by_column(self, http: httpx.AsyncClient, memory: Memory) -> None:
        memory.history.answer = lambda sql, parameters: MemoryRows([{"a": 1, "b": "x"}, {"a": 2, "b": None}], 1)
        answer = await http.post("/v1/query", json={"sql": "SELECT 1", "format": "columns"})
        assert answer.json() == {"a": [1, 2], "b": ["x", None]}
        assert answer.headers["X-Mplp-Behind"] == "0"
        assert problem(await http.post("/v1/query", json={"sql": "SELECT 1", "format": "cubes"}))[0] == 422

    async def test_a_workflow_is_published_listed_shown_and_deleted(self, http: httpx.AsyncClient, memory: Memory) -> None:
        applied = await http.post("/v1/workflows?why=first", json={"id": "w1", "steps": []})
        assert applied.json() == {"workflows": [{"id": "w1", "missing": []}]}
        two = await http.post(
            "/v1/workflows", content=b"id: w2\nsteps: []\n---\nid: w3\nsteps: []\n", headers={"Content-Type": "application/yaml"}
        )
        assert [each["id"] for each in two.json()["workflows"]] == ["w2", "w3"]
        page = (await http.get("/v1/workflows?limit=2")).json()
        rest = (await http.get("/v1/workflows", params={"cursor": page["next"]})).json()
        assert ([each["id"] for each in page["items"]], [each["id"] for each in rest["items"]]) == (["w1", "w2"], ["w3"])
        shown = (await http.get("/v1/workflows/w1")).json()
        assert (shown["definition"], shown["who"], shown["why"]) == ({"id": "w1", "steps": []}, "local", "first")
        assert (await http.delete("/v1/workflows/w1")).json()["id"] == "w1"
        assert problem(await http.get("/v1/workflows/w1")) == (404, "workflow.unknown")
        assert problem(await http.delete("/v1/workflows/w1")) == (404, "workflow.unknown")

    async def test_one_faulty_workflow_and_none_is_published(self, http: httpx.AsyncClient, memory: Memory) -> None:
        answer = await http.post("/v1/workflows", json=[{"id": "w1", "steps": []}, {"id": "w2"}])
        assert problem(answer) == (422, "definition.invalid")
        assert [fault["pointer"] for fault in answer.json()["faults"]] == ["/1/steps"]
        assert memory.workflows.stored == {}
        assert problem(await http.post("/v1/workflows", json="w")) == (400, "body.invalid")

    @pytest.mark.parametrize(
        "body",
        [b"a: [", b"a: &x [1]\nb: *x\n", b"- " * 5000, b"\x00", b"just text", b"", b"[" * 300 + b"]" * 300, b"a: 2026-99-99\n---\n- 1"],
    )
    async def test_yaml_that_is_no_rule_is_refused(self, http: httpx.AsyncClient, memory: Memory, body: bytes) -> None:
        status, _code = problem(await http.post("/v1/rules", content=body, headers={"Content-Type": "application/yaml"}))
        assert status == 400
        assert memory.rules.stored == {}

    @pytest.mark.parametrize("path", ["/v1/rules", "/v1/workflows"])
    async def test_a_key_that_yaml_gives_twice_is_refused(self, http: httpx.AsyncClient, path: str) -> None:
        answer = await http.post(path, content=b"id: a\n---\nid: b\nx: {y: 1, y: 2}\n", headers={"Content-Type": "application/yaml"})
        assert problem(answer) == (422, "yaml.invalid")
        assert [fault["pointer"] for fault in answer.json()["faults"]] == ["/1/x/y"]

    async def test_an_operation_is_called(self, http: httpx.AsyncClient) -> None:
        (listed,) = (await http.get("/v1/modules")).json()["items"]
        assert (listed["name"], listed["status"], listed["operations"], listed["instances"]) == (
            "context",
            "serving",
            ["create-context"],
            [],
        )
        shown = (await http.get("/v1/modules/context")).json()
        assert shown["operations"]["create-context"]["description"] == "Opens a context."
        assert problem(await http.get("/v1/modules/nothing")) == (404, "module.unknown")
        done = await http.post("/v1/modules/context/create-context?home=h7", json={"name": "n"})
        assert done.json() == {"result": {"contextId": "h7/context-1", "given": {"name": "n"}}}
        assert problem(await http.post("/v1/modules/context/nope")) == (404, "operation.unknown")


class TestOperation:
    async def test_readiness_says_what_each_check_saw(self, http: httpx.AsyncClient, memory: Memory) -> None:
        async def fine() -> Check:
            return Check(ok=True)

        async def away() -> Check:
            raise Unavailable("kafka.unreachable", "Kafka does not answer.")

        memory.checks.update(core=fine, kafka=away)
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "not-ready")
        assert answer.json()["checks"]["core"] == {"ok": True, "detail": ""}
        assert "kafka.unreachable" in answer.json()["checks"]["kafka"]["detail"]
        assert (await http.get("/readyz?exclude=kafka")).status_code == 200
        assert (await http.get("/healthz")).json() == {"status": "ok"}

    async def test_a_check_that_hangs_is_a_failed_check(
        self, http: httpx.AsyncClient, memory: Memory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("services.gateway.health.CHECK_TIMEOUT_S", 0.01)
        memory.checks["core"] = asyncio.Event().wait
        assert (await http.get("/readyz")).status_code == 503

    async def test_metrics_count_what_happened(self, http: httpx.AsyncClient, memory: Memory) -> None:
        memory.history.lag = 3
        await http.post("/v1/events", json=[{"type": "a"}, {"type": 1}])
        await http.get("/v1/executions/nope")
        text = (await http.get("/metrics")).text
        for line in (
            "mplp_events_accepted_total 1.0",
            'mplp_events_rejected_total{code="field.invalid"} 1.0',
            "mplp_sink_behind_records 3.0",
            'mplp_http_request_seconds_count{method="GET",route="/v1/executions/{execution_id}",status="404"} 1.0',
        ):
            assert line in text

    async def test_the_description_covers_every_route(self, http: httpx.AsyncClient) -> None:
        schema = (await http.get("/openapi.json")).json()
        assert {"/v1/executions", "/v1/events", "/v1/stream", "/v1/query", "/v1/rules", "/healthz", "/metrics"} <= set(schema["paths"])
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                assert operation["summary"], (path, method)
                assert "Problem" in str(operation["responses"]["default"])
                if method == "post" and "{command}" not in path:
                    assert operation["requestBody"]["content"]
