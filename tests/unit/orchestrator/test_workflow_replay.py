"""Random workflows on random paths: after every input the fold of the log equals the live state, and the laws of an execution hold."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.orchestrator.definitions import validate
from services.orchestrator.evolve import evolve
from services.orchestrator.scenario import read_scenario
from services.orchestrator.simulation import Simulation
from services.orchestrator.state import ENDED, TERMINAL, Execution
from services.orchestrator.store import AnyModule
from streams.codec.avro import Codec, SchemaIds
from streams.records import WorkflowTransition

CODEC = Codec(SchemaIds.local())
DURATIONS = st.sampled_from([0, 1, 500, 1000, 1500, 3000, 10_000, 60_000])


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "max-retries": draw(st.integers(0, 3)),
        "backoff-strategy": draw(st.sampled_from(["fixed", "linear", "exponential"])),
        "initial-interval": draw(DURATIONS),
        "jitter": draw(st.sampled_from([0, 0.3])),
        "retryable": ["broken"],
    }


@st.composite
def handlings(draw: st.DrawFn, name: str, *, inner: bool) -> dict[str, Any]:
    actions = ["skip", "fail", "use-value", "escalate-to-human", "compensate", *(["run-step"] if inner else [])]
    handling: dict[str, Any] = {}
    if draw(st.booleans()):
        handling["retry-policy"] = draw(policies())
    if draw(st.booleans()):
        action = draw(st.sampled_from(actions))
        fallback: dict[str, Any] = {"condition": draw(st.sampled_from(["error", "timeout", "broken", "error.retryable"])), "action": action}
        if action == "use-value":
            fallback["value"] = draw(st.sampled_from([1, None, "${input.n}", "${input.missing}"]))
        if action == "run-step":
            fallback["step"] = {
                "id": f"{name}-instead",
                "type": "module-operation",
                "module": "m",
                "operation": f"o{draw(st.integers(0, 3))}",
            }
        if action == "escalate-to-human" and draw(st.booleans()):
            fallback["deadline"] = 5000
        handling["fallback-actions"] = [fallback]
    return handling


@st.composite
def steps(draw: st.DrawFn, name: str, depth: int) -> dict[str, Any]:
    kinds = ["module-operation"] * 4 + ["wait", "transform", "approval", "emit"] + (["parallel", "conditional"] * 2 if depth < 2 else [])
    kind = draw(st.sampled_from(kinds))
    step: dict[str, Any] = {"id": name, "type": kind}
    match kind:
        case "module-operation":
            step |= {
                "module": "m",
                "operation": f"o{draw(st.integers(0, 3))}",
                "parameters": {"x": draw(st.sampled_from(["${input.n}"] * 9 + ["${input.gone}"]))},
            }
            if draw(st.booleans()):
                step["attempt-timeout"] = draw(st.sampled_from([900, 2000]))
        case "wait":
            step["for"] = draw(DURATIONS)
        case "transform":
            step["value"] = draw(st.sampled_from(["1 + 1"] * 4 + ["input.n"] * 4 + ["input.gone"]))
        case "approval":
            step["deadline"] = draw(st.sampled_from([1000, 20_000]))
        case "emit":
            step["event"] = {"type": "x.happened", "data": "${input.n}"}
        case "parallel":
            step["steps"] = draw(lists(f"{name}-", depth + 1))
            step |= draw(st.sampled_from([{}, {"fail-fast": True}, {"require": "all"}, {"max-concurrency": 1}]))
        case _:
            step["condition"] = {"type": "expression", "expression": draw(st.sampled_from(["true"] * 4 + ["false"] * 4 + ["input.gone"]))}
            step["then"] = draw(steps(f"{name}-then", depth + 1))
            if draw(st.booleans()):
                step["else"] = draw(steps(f"{name}-else", depth + 1))
    if draw(st.integers(0, 3)) == 0:
        step["timeout"] = draw(st.sampled_from([1000, 2500, 8000]))
    if draw(st.integers(0, 2)) == 0:
        step["error-handling"] = draw(handlings(name, inner=True))
    if draw(st.integers(0, 3)) == 0:
        step["compensation"] = {"type": "module-operation", "module": "m", "operation": f"o{draw(st.integers(0, 3))}"}
    return step


@st.composite
def lists(draw: st.DrawFn, prefix: str, depth: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 4 if depth == 0 else 3))):
        step = draw(steps(f"{prefix}{number}", depth))
        step["dependencies"] = [other["id"] for other in found if draw(st.integers(0, 2)) == 0]
        found.append(step)
    return found


@st.composite
def workflows(draw: st.DrawFn) -> dict[str, Any]:
    document: dict[str, Any] = {"id": "w", "name": "w", "steps": draw(lists("s", 0))}
    if draw(st.booleans()):
        document["error-handling"] = draw(handlings("w", inner=False))
    document |= draw(st.sampled_from([{}, {}, {"timeout": 5000}, {"on-failure": "cancel"}, {"max-concurrency": 1}]))
    return document


RESULTS = st.builds(lambda after, n: {"result": {"n": n}, "after": after}, DURATIONS, st.integers(-(2**53), 2**53))
ANSWERS = st.one_of(
    st.just("never"),
    RESULTS,
    RESULTS,
    RESULTS,
    st.builds(
        lambda after, code, flag: {"error": {"code": code, "message": "m", "retryable": flag}, "after": after},
        DURATIONS, st.sampled_from(["broken", "unavailable", "not-found"]), st.booleans(),
    ),
)  # fmt: skip


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    commands = st.sampled_from([{"pause": {}}, {"resume": {}}, {"pause": {}}, {"resume": {}}, {"cancel": {}}])
    moments = [{"time": draw(DURATIONS), **draw(commands)} for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2, 4])))]
    # Whatever was paused goes on in the end, so that most runs reach their end.
    return {
        "input": {"n": 1},
        "modules": {f"m.o{number}": draw(st.lists(ANSWERS, min_size=1, max_size=3)) for number in range(4)},
        "at": [*moments, {"time": "1d", "resume": {}}],
    }


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    document = draw(workflows())
    return document, draw(scenarios()), draw(st.lists(st.sampled_from(["retry", "skip", "use-value", "fail"]), min_size=8, max_size=8))


def check_laws(simulation: Simulation) -> None:
    """What holds of every execution at every moment."""
    state = simulation.runner.view.state("test")
    if state is None:
        return
    machine = simulation.machine
    asked = {send.record.id for send in machine.outstanding(state) if hasattr(send.record, "kind")}
    assert len(asked) == sum(step.status == "running" and bool(step.module) and step.fallback is None for step in state.steps.values())
    live = {name for name, step in state.steps.items() if step.status in ("scheduled", "running", "waiting")}
    assert set(state.live) == live
    due = machine.due(state)
    assert due is None or due >= simulation.runner.now_us, "a timer that is due has fired with the input that came after it"
    if state.status in TERMINAL:
        assert not live
        assert due is None
        assert all(step.status in ENDED for step in state.steps.values())
    elif not live and state.status == "running":
        raise AssertionError("an execution that runs has something that runs or waits")


def run_checked(simulation: Simulation) -> None:
    while simulation.step():
        check_laws(simulation)


def answer_all(simulation: Simulation, choice: str) -> None:
    """Somebody answers every open question an hour later."""
    state = simulation.runner.view.state("test")
    for name in () if state is None else state.live:
        approval = state.steps[name].approval if state else None
        if approval is not None:
            given = choice if approval.escalated else approval.choices[0]
            data = {"step": name, "choice": given, "by": "x", "value": 1}
            simulation.command(simulation.runner.now_us + 3_600_000_000, "answer", data)


def read_back(events: list[WorkflowTransition]) -> Execution | None:
    """The fold of the log as a reader sees it: from bytes."""
    state: Execution | None = None
    for event in events:
        if event.sequence:
            decoded = CODEC.decode(CODEC.encode(event))
            assert isinstance(decoded, WorkflowTransition)
            state = evolve(state, decoded)
    return state


@settings(
    max_examples=int(os.environ.get("MPLP_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(cases())
def test_replay_equals_live_and_the_laws_hold(case: tuple[dict[str, Any], dict[str, Any], list[str]]) -> None:
    document, scenario, choices = case
    assert validate(document, AnyModule()) == []
    simulation = Simulation(document, read_scenario(scenario), checked=True)
    run_checked(simulation)
    for choice in choices:
        answer_all(simulation, choice)
        run_checked(simulation)
    answer_all(simulation, "fail")
    run_checked(simulation)
    events = simulation.runner.events()
    assert read_back(events) == simulation.runner.view.state("test")
    assert [event.sequence for event in events if event.sequence] == list(range(1, len(events) + 1))
    assert all(event.status not in TERMINAL for event in events[: next(n for n, e in enumerate(events) if e.type == "execution.started")])
    ends = [number for number, event in enumerate(events) if event.type.removeprefix("execution.") in TERMINAL]
    assert len(ends) <= 1
    after = events[ends[0] + 1 :] if ends else []
    assert {event.type for event in after} <= {"step.answered_late", "command.refused"}
    final = simulation.runner.view.state("test")
    assert final is not None
    waiting = [name for name in final.live if final.steps[name].approval is not None]
    assert final.status in TERMINAL or waiting, f"stuck with {final.live}"
