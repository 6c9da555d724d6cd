"""Signals: delivered to a step that waits, else kept; first come, first served, by name; bounded; a repeat changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from services.orchestrator.scenario import read_scenario
from services.orchestrator.simulation import Simulation
from streams import limits
from tests.unit.orchestrator.conftest import Run, operation, statuses, types, workflow


def awaiting(id: str, name: str, *dependencies: str, **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "signal", "name": name, "dependencies": list(dependencies), **fields}


def signal(time: str, name: str, data: Any = None) -> dict[str, Any]:
    return {"time": time, "signal": {"name": name, **({} if data is None else {"data": data})}}


def refusals(outcome: dict[str, Any]) -> list[str]:
    return [event["data"]["code"] for event in outcome["transitions"] if event["type"] == "command.refused"]


def test_a_waiting_step_gets_it_and_its_payload_is_the_result(run: Run) -> None:
    outcome = run(workflow(awaiting("s", "go")), at=[signal("1h", "go", {"x": [1]})])
    assert (outcome["status"], outcome["output"], outcome["duration_ms"]) == ("completed", {"s": {"x": [1]}}, 3_600_000)
    assert types(outcome, "s") == ["step.started", "step.waiting", "signal.received", "step.completed"]


def test_one_that_comes_early_is_kept_and_taken_without_waiting(run: Run) -> None:
    outcome = run(workflow({"id": "w", "type": "wait", "for": "1m"}, awaiting("s", "go", "w")), at=[signal("1s", "go", 7)])
    assert outcome["output"] == {"w": None, "s": 7}
    assert types(outcome, "s") == ["step.started", "step.completed"]
    assert outcome["duration_ms"] == 60_000


def test_kept_ones_of_a_name_are_taken_in_the_order_in_which_they_came(run: Run) -> None:
    steps = [{"id": "w", "type": "wait", "for": "1m"}, awaiting("a", "x", "w"), awaiting("b", "y", "a"), awaiting("c", "x", "b")]
    outcome = run(workflow(*steps), at=[signal("1s", "x", 1), signal("2s", "y", 2), signal("3s", "x", 3)])
    assert outcome["output"] == {"w": None, "a": 1, "b": 2, "c": 3}


def test_of_two_that_wait_the_one_that_has_waited_longer_gets_it(run: Run) -> None:
    first = [{"id": "w", "type": "wait", "for": "1s"}, awaiting("b", "x", "w"), awaiting("a", "x")]
    outcome = run(workflow(*first), at=[signal("2s", "x", "one"), signal("3s", "x", "two")])
    assert outcome["output"] == {"w": None, "a": "one", "b": "two"}


def test_another_name_is_kept_and_the_step_waits_on(run: Run) -> None:
    outcome = run(workflow(awaiting("s", "go")), at=[signal("1s", "stop")])
    assert (outcome["status"], statuses(outcome)) == ("running", {"s": "waiting"})


def test_a_paused_execution_takes_it_and_nothing_starts_before_the_resume(run: Run) -> None:
    document = workflow(awaiting("s", "go"), operation("next", "s"))
    at = [{"time": "1s", "pause": {}}, signal("2s", "go", 1), {"time": "1h", "resume": {}}]
    before = run(document, at=at[:2])
    assert (before["status"], statuses(before)) == ("paused", {"s": "completed", "next": "pending"})
    after = run(document, at=at)
    assert (after["status"], after["duration_ms"]) == ("completed", 3_600_000)


def test_a_time_out_of_the_step_ends_the_wait_and_a_later_signal_is_kept(run: Run) -> None:
    skipping = {"error-handling": {"fallback-actions": [{"condition": "timeout", "action": "skip"}]}}
    document = workflow(awaiting("s", "go", timeout="1s", **skipping), awaiting("t", "go", "s"))
    outcome = run(document, at=[signal("5s", "go", 5)])
    assert outcome["output"] == {"s": None, "t": 5}


def test_the_name_may_be_made_of_references(run: Run) -> None:
    outcome = run(workflow(awaiting("s", "paid-${input.order}")), input={"order": 7}, at=[signal("1s", "paid-7", True)])
    assert outcome["output"] == {"s": True}
    broken = run(workflow(awaiting("s", "${input.order}")), input={"order": 7})
    assert broken["error"]["code"] == "invalid"


@pytest.mark.parametrize("data", [{}, {"name": ""}, {"name": 7}, {"name": "x" * (limits.NAME_CHARACTERS_MAX + 1)}])
def test_one_without_a_name_is_refused(run: Run, data: dict[str, Any]) -> None:
    assert refusals(run(workflow(awaiting("s", "go")), at=[{"time": "1s", "signal": data}])) == ["command.invalid"]


def test_what_is_kept_is_bounded_in_number_and_in_bytes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIGNALS_KEPT_MAX", 2)
    outcome = run(workflow(awaiting("s", "go")), at=[signal("1s", "x"), signal("2s", "x"), signal("3s", "x"), signal("4s", "go")])
    assert (refusals(outcome), outcome["status"]) == (["signal.too-many"], "completed")
    monkeypatch.setattr(limits, "SIGNALS_KEPT_MAX", 1000)
    large = "x" * (limits.PAYLOAD_BYTES_MAX - 100)
    outcome = run(workflow(awaiting("s", "go")), at=[signal("1s", "x", large) for _ in range(9)])
    assert refusals(outcome) == ["execution.too-large"] * 2


def test_the_room_of_one_that_is_taken_is_free_again(run: Run) -> None:
    large = "x" * (limits.PAYLOAD_BYTES_MAX - 100)
    loop = [awaiting("s0", "x")] + [awaiting(f"s{n}", "x", f"s{n - 1}") for n in range(1, 3)]
    simulation = Simulation(
        workflow(*loop),
        read_scenario({"at": [signal(f"{n}s", "y", large) for n in range(1, 6)] + [signal("9s", "x", "small")]}),
        checked=True,
    )
    simulation.step()
    begun = simulation.runner.view.state("test")
    simulation.run()
    state = simulation.runner.view.state("test")
    assert begun is not None
    assert state is not None
    assert state.results_bytes - begun.results_bytes == 5 * (len(large) + 2) + len('"small"')


def test_the_same_command_twice_is_delivered_once(run: Run) -> None:
    simulation = Simulation(
        workflow(awaiting("s", "go"), awaiting("t", "go", "s")), read_scenario({"at": [signal("1s", "go", 1)]}), checked=True
    )
    repeat = next(record for _, _, _, topic, record in simulation._queue if getattr(record, "command", "") == "signal")
    simulation.run()
    simulation.runner.receive(repeat, time_us=simulation.runner.now_us + 1)
    outcome = simulation.run()
    assert statuses(outcome) == {"s": "completed", "t": "waiting"}
    assert types(outcome).count("signal.received") == 1
