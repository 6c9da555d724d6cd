"""Schedules of published workflows: their times, what was missed, revisions, and starts that are repeated until they are on their way."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.modules.machine import ModulesMachine
from services.modules.schedule.decide import aggregate_of
from services.modules.schedule.state import Schedules
from services.modules.states import STATES, ModuleState
from streams.log.types import Due
from streams.records import ModuleMessage, WorkflowCommand, from_micros, to_micros
from streams.schedules import Cron
from streams.testing.machine_runner import MachineRunner
from streams.topics import COMMANDS, REQUESTS
from streams.triggers import execution_for_time

START_US = to_micros(datetime(2026, 1, 1, 9, 30, tzinfo=UTC))
HOUR_US = 3600 * 1_000_000
HOURLY = {"cron": "0 * * * *", "timezone": "UTC", "missed": "latest"}


def told(order: int, *schedules: dict[str, str], workflow: str = "w") -> ModuleMessage:
    return ModuleMessage(
        id=f"set-{order}", type="schedule.notified", kind="notification", source_module="workflow", target_module="schedule",
        operation="set", data={"workflow": workflow, "order": order, "schedules": list(schedules)},
    )  # fmt: skip


def runner_with(*schedules: dict[str, str], now_us: int = START_US) -> MachineRunner[ModuleState]:
    runner: MachineRunner[ModuleState] = MachineRunner(machine=ModulesMachine(), now_us=now_us, checked=True)
    runner.receive(told(1, *schedules))
    return runner


def state_of(runner: MachineRunner[ModuleState]) -> Schedules:
    state = runner.view.state(aggregate_of("w"))
    assert isinstance(state, Schedules)
    return state


def performed(runner: MachineRunner[ModuleState]) -> list[str]:
    """Performs the effects as the host does, in order; the times of the starts among them."""
    times = []
    for send in runner.take_effects():
        if send.topic == COMMANDS:
            assert isinstance(send.record, WorkflowCommand)
            assert send.awaited
            assert not send.hand_over
            times.append(send.record.data["event"]["time"][5:16])
        else:
            assert send.topic == REQUESTS
            runner.receive(send.record)
    return times


def fire(runner: MachineRunner[ModuleState], now_us: int | None = None) -> list[str]:
    """Fires timers until none is due at `now_us` (default: the next one alone); the times of the starts."""
    times: list[str] = []
    if now_us is None:
        runner.fire(aggregate_of("w"))
        return performed(runner)
    while (due := runner.next_due()) is not None and due[0] <= now_us:
        # As the host does: decided at the due time, the clock says how late it is.
        runner.handle(Due(aggregate_id=due[1], due_us=due[0], time_us=due[0], now_us=now_us))
        times += performed(runner)
    return times


def test_each_time_starts_an_execution_of_its_own() -> None:
    runner = runner_with(HOURLY)
    assert [fire(runner), fire(runner), fire(runner)] == [["01-01T10:00"], ["01-01T11:00"], ["01-01T12:00"]]
    assert [event.type for event in runner.events()] == ["schedule.set"] + ["schedule.fired", "schedule.started"] * 3
    assert state_of(runner).starting == ()


def test_the_start_says_what_started_it() -> None:
    runner = runner_with({"cron": "30 10 * * *", "timezone": "Europe/Berlin", "missed": "latest"}, now_us=START_US)
    runner.fire(aggregate_of("w"))
    start, confirm = runner.take_effects()
    command = start.record
    assert isinstance(command, WorkflowCommand)
    cron = Cron("30 10 * * *", "Europe/Berlin")
    at_us = to_micros(datetime(2026, 1, 2, 9, 30, tzinfo=UTC))
    assert command.execution_id == start.key == execution_for_time("w", cron, at_us)
    assert command.data["workflow"] == "w"
    assert command.data["trigger"] == {"cron": "30 10 * * *", "timezone": "Europe/Berlin"}
    assert command.data["event"]["data"]["local_time"] == "2026-01-02T10:30:00+01:00"
    assert confirm.key == "w"


@pytest.mark.parametrize(
    ("missed", "expected"),
    [("latest", ["01-01T14:00"]), ("all", ["01-01T10:00", "01-01T11:00", "01-01T12:00", "01-01T13:00", "01-01T14:00"]), ("skip", [])],
)
def test_after_a_downtime_the_workflow_says_what_is_made_up_for(missed: str, expected: list[str]) -> None:
    runner = runner_with(HOURLY | {"missed": missed})
    late_us = START_US + 5 * HOUR_US  # 14:30
    assert fire(runner, late_us) == expected
    assert fire(runner, late_us + HOUR_US // 2) == ["01-01T15:00"]
    if missed == "latest":
        fired = runner.events("schedule.fired")[0]
        assert from_micros(fired.data["missed_since_us"]).hour == 10
    if missed == "skip":
        (skipped,) = runner.events("schedule.skipped")
        assert from_micros(skipped.data["since_us"]).hour == 10


def test_a_little_late_is_not_missed() -> None:
    runner = runner_with(HOURLY | {"missed": "skip"})
    assert fire(runner, START_US + HOUR_US // 2 + 59_000_000) == ["01-01T10:00"]


def test_a_new_owner_repeats_the_starts_that_are_not_known_to_be_on_their_way() -> None:
    runner = runner_with(HOURLY)
    runner.fire(aggregate_of("w"))
    sent = runner.take_effects()
    # The owner dies before it performs them; the successor knows what the log says.
    machine = ModulesMachine()
    state = runner.replay()[aggregate_of("w")]
    assert list(machine.outstanding(state)) == sent
    for send in sent:
        if send.topic == REQUESTS:
            runner.receive(send.record)
            runner.receive(send.record)  # twice is once
    assert list(machine.outstanding(state_of(runner))) == []
    assert len(runner.events("schedule.started")) == 1


def test_a_revision_is_taken_over_once_and_an_older_one_never() -> None:
    runner = runner_with(HOURLY)
    daily = {"cron": "@daily", "timezone": "UTC", "missed": "all"}
    runner.receive(told(7, daily))
    runner.receive(told(7, daily))
    runner.receive(told(1, HOURLY))
    assert [(each.cron, each.missed) for each in state_of(runner).planned] == [("@daily", "all")]
    assert len(runner.events("schedule.set")) == 2
    runner.receive(told(9))
    assert state_of(runner).planned == ()
    assert runner.next_due() is None


def test_a_schedule_that_stays_keeps_its_next_time() -> None:
    runner = runner_with(HOURLY)
    # Published again three hours later, before the timers of a host that was away have fired.
    runner.receive(told(2, HOURLY, {"cron": "30 * * * *", "timezone": "UTC", "missed": "latest"}), time_us=START_US + 3 * HOUR_US)
    assert [from_micros(each.next_us).strftime("%H:%M") for each in state_of(runner).planned] == ["10:00", "13:30"]


def test_a_start_under_way_survives_the_end_of_its_schedule() -> None:
    runner = runner_with(HOURLY)
    runner.fire(aggregate_of("w"))
    runner.receive(told(2))
    assert [send.topic for send in ModulesMachine().outstanding(state_of(runner))] == [COMMANDS, REQUESTS]


def test_without_schedules_nothing_is_kept() -> None:
    assert runner_with().events() == []


@pytest.mark.parametrize(
    "data",
    [None, {}, {"workflow": "w"}, {"workflow": "w", "order": "1", "schedules": []}, {"workflow": "w", "order": 1, "schedules": [{}]},
     {"workflow": "w", "order": 1, "schedules": [{"cron": "soon", "timezone": "UTC", "missed": "all"}]}, {"workflow": 5}],
)  # fmt: skip
def test_what_is_no_notification_changes_nothing(data: Any) -> None:
    runner = runner_with(HOURLY)
    message = told(5)
    object.__setattr__(message, "data", data)
    before = state_of(runner)
    runner.receive(message)
    assert state_of(runner) == before


def test_its_state_goes_into_snapshots_and_back() -> None:
    runner = runner_with(HOURLY)
    runner.fire(aggregate_of("w"))
    assert STATES.load(STATES.dump(state_of(runner))) == state_of(runner)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=8), st.sampled_from(["latest", "all"]))
def test_whenever_the_host_looks_no_time_starts_twice_and_the_latest_is_never_left_out(minutes: list[int], missed: str) -> None:
    runner = runner_with(HOURLY | {"missed": missed})
    now_us, times = START_US, []
    for wait in minutes:
        now_us += wait * 60_000_000
        times += fire(runner, now_us)
    latest = Cron("0 * * * *").latest(START_US, now_us)
    assert len(times) == len(set(times))
    assert times == sorted(times)
    assert (times[-1:] or [None]) == ([None] if latest is None else [from_micros(latest).strftime("%m-%dT%H:%M")])
    if missed == "all":
        assert len(times) == len(list(Cron("0 * * * *").instants(START_US, now_us)))
