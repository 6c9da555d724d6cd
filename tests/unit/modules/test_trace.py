from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.modules.trace import decide
from services.modules.trace.analysis import percentile, summarize
from services.modules.trace.collecting import take
from services.modules.trace.state import TRANSITIONS, Trace
from streams.operations import COLLECT
from streams.records import ModuleMessage


def record(modules: Any, trace: str, name: str = "work", **more: Any) -> Any:
    return modules.call("trace", "record", {"traceId": trace, "name": name, **more})


def test_monitoring_of_a_plan_runs_and_knows_its_context(modules: Any) -> None:
    plan = modules.plan(("a", []))
    started = modules.call("trace", "start-monitoring", planId=plan)
    assert started.types == ["trace.started", "trace.watched"]
    assert started.result["status"] == "running"
    assert started.result["planId"] == plan
    assert started.result["contextId"] == modules.call("plan", "get-plan", planId=plan).result["contextId"]


def test_what_is_monitored_must_be_there(modules: Any) -> None:
    assert modules.call("trace", "start-monitoring", {}).refused == ("invalid", "")
    assert modules.call("trace", "start-monitoring", planId="exec-1/plan-0").refused == ("not-found", "/planId")
    assert modules.call("trace", "start-monitoring", contextId="exec-1/context-0").refused == ("not-found", "/contextId")
    plan = modules.plan()
    assert modules.call("trace", "start-monitoring", planId=plan, contextId=modules.context()).refused == ("conflict", "/contextId")


def test_records_are_kept_in_order_and_paged(modules: Any) -> None:
    trace = modules.trace()
    numbers = [record(modules, trace, name=f"n{index}").result["recordCount"] for index in range(5)]
    assert numbers == [1, 2, 3, 4, 5]
    page = modules.call("trace", "get-trace", traceId=trace, offset=1, limit=2).result
    assert [each["name"] for each in page["records"]] == ["n1", "n2"]
    assert page["recordCount"] == 5
    assert page["records"][0]["at"] < page["records"][1]["at"]


@pytest.mark.parametrize("status", TRANSITIONS["running"])
def test_a_stopped_trace_takes_no_more(modules: Any, status: str) -> None:
    trace = modules.trace()
    stopped = modules.call("trace", "stop-monitoring", traceId=trace, status=status)
    assert stopped.types == [f"trace.{status}", "trace.watched"]
    assert stopped.result["endedAt"] > stopped.result["startedAt"]
    assert record(modules, trace).refused == ("conflict", "/traceId")
    assert modules.call("trace", "stop-monitoring", traceId=trace).error.code == "conflict"


@pytest.mark.parametrize("operation", ["record", "stop-monitoring", "get-trace", "analyze-trace"])
def test_an_unknown_trace_is_not_found(modules: Any, operation: str) -> None:
    more = {"name": "x"} if operation == "record" else {}
    assert modules.call("trace", operation, traceId="exec-1/trace-0", **more).refused == ("not-found", "/traceId")


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"type": "nap"}, "/type"),
        ({"durationMs": -1}, "/durationMs"),
        ({"durationMs": 1e300}, "/durationMs"),
        ({"severity": 1}, "/severity"),
    ],
)
def test_a_record_that_makes_no_sense_is_invalid(modules: Any, more: dict[str, Any], pointer: str) -> None:
    assert record(modules, modules.trace(), **more).refused == ("invalid", pointer)


def test_a_trace_has_a_greatest_length(modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "RECORDS_MAX", 2)
    trace = modules.trace()
    record(modules, trace)
    record(modules, trace)
    assert record(modules, trace).refused == ("payload.too-large", "/traceId")


def test_an_analysis_is_computed_from_the_records(modules: Any) -> None:
    trace = modules.trace()  # calls are one second apart
    record(modules, trace, "load", type="start")
    record(modules, trace, "load", type="progress", severity="debug")
    record(modules, trace, "load", type="completion")  # 2 s after its start
    record(modules, trace, "query", type="start", span="q1")
    record(modules, trace, "query", type="start", span="q2")
    record(modules, trace, "query", type="failure", span="q1", severity="error")  # 2 s
    record(modules, trace, "call", type="completion", durationMs=10)
    record(modules, trace, "call", type="timeout", durationMs=30.5)
    modules.call("trace", "stop-monitoring", traceId=trace)
    found = modules.call("trace", "analyze-trace", traceId=trace).result
    assert found["records"] == 8
    assert found["byType"] == {"start": 3, "progress": 1, "completion": 2, "failure": 1, "timeout": 1}
    assert found["bySeverity"] == {"info": 6, "debug": 1, "error": 1}
    assert found["byName"] == {"load": 3, "query": 3, "call": 2}
    assert (found["failures"], found["failureRate"]) == (2, 0.5)
    assert found["openSpans"] == ["q2"]
    assert found["durationMs"] == 9000
    assert found["longestGapMs"] == 1000
    assert found["durations"]["load"]["maxMs"] == found["durations"]["query"]["minMs"] == 2000
    call = found["durations"]["call"]
    assert (call["count"], call["minMs"], call["meanMs"], call["maxMs"], call["p50Ms"]) == (2, 10, 20.25, 30.5, 20.25)


def test_an_empty_trace_can_be_analysed_while_it_runs(modules: Any) -> None:
    trace = modules.trace()
    found = modules.call("trace", "analyze-trace", traceId=trace).result
    assert (found["records"], found["failureRate"], found["durations"], found["durationMs"]) == (0, 0.0, {}, 1000)
    assert modules.call("trace", "analyze-trace", traceId=trace).result["durationMs"] == 2000


@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=50))
def test_percentiles_agree_with_the_standard_library(values: list[int]) -> None:
    ordered = sorted(values)
    expected = statistics.quantiles(ordered, n=100, method="inclusive")
    for percent in (50, 90, 95, 99):
        assert percentile(ordered, percent) == pytest.approx(expected[percent - 1])


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=50))
def test_figures_are_in_order(values: list[int]) -> None:
    found = summarize(values)
    figures = [found.least_ms, *found.percentiles_ms.values(), found.greatest_ms]
    assert figures == sorted(figures)
    assert found.count == len(values)


@dataclass(frozen=True)
class Known:
    """A view with one trace."""

    trace: Trace

    def state(self, aggregate_id: str) -> Trace | None:
        return self.trace if aggregate_id == self.trace.trace_id else None


@pytest.mark.parametrize(
    ("told", "sequences", "heard", "missed"),
    [(4, [9], 1, 0), (5, [9, 10], 2, 0), (7, [9, 12], 2, 2), (3, [7, 8], 0, 0), (4, [8, 9], 1, 0)],
    ids=["the next", "the next two, whatever lies between", "two were lost", "told again", "partly told again"],
)
def test_what_was_lost_on_the_way_to_a_trace_is_counted(told: int, sequences: list[int], heard: int, missed: int) -> None:
    trace = Trace(
        trace_id="t", name="n", plan_id=None, context_id=None, status="running", started_us=0, execution_id="e", sequence=8, told=3
    )  # fmt: skip
    entries = [{"type": "step.started", "step": f"s{sequence}", "attempt": 1, "sequence": sequence} for sequence in sequences]
    message = ModuleMessage(
        type="trace.notified", source="s", subject="e", data={"id": "t", "entries": entries, "told": told}, kind="notification",
        source_module="workflow", operation=COLLECT,
    )  # fmt: skip

    found = take(Known(trace), message, 0)  # type: ignore[arg-type]

    assert found is not None
    recorded = [decided.event for decided in found.events]
    assert (len(recorded), sum(event.missed for event in recorded)) == (heard, missed)
    assert all(event.told == told for event in recorded)
