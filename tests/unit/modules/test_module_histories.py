"""What earlier versions of the modules have written: read for ever, meant as then, and gone on with by today's decisions."""

from __future__ import annotations

import pytest

from services.modules.machine import ModulesMachine
from services.modules.states import STATES, ModuleState
from services.orchestrator.trial import differences
from streams.records import ModuleMessage
from streams.testing.machine_runner import MachineRunner
from streams.topics import TRANSITIONS
from tests.workloads import module_histories as histories
from tests.workloads.histories import checksums

NAMES = histories.names()
ADVICE = "record histories that have it: python -m tests.workloads.module_histories add SUFFIX"


@pytest.mark.parametrize("name", NAMES)
def test_a_history_means_what_it_meant(name: str) -> None:
    """A field that a state has today alone, or no more, is not compared."""
    for partition in histories.read(name):
        found = list(histories.meaning(partition.entries))
        for number, (meant, means) in enumerate(zip(partition.meant, found, strict=True)):
            if meant is not None and meant["state"] == {"targets": {}}:
                meant["state"] = None  # when some of these were recorded, watches of nothing were kept
            if meant is not None and meant["state"] is not None and means is not None and means["state"] is not None:
                meant["state"] = {field: value for field, value in meant["state"].items() if field in means["state"]}
            assert list(differences(meant, means, "")) == [], f"record {number}: {partition.entries[number].event}"


@pytest.mark.parametrize("name", NAMES)
def test_todays_decisions_go_on_from_a_history(name: str) -> None:
    for number, partition in enumerate(histories.read(name)):
        runner: MachineRunner[ModuleState] = MachineRunner(machine=ModulesMachine())
        runner.view.partition = number
        runner.take_over(partition.entries)
        assert all(STATES.load(STATES.dump(state)) == state for _, state in runner.view.states())
        written = len(runner.log)
        for entry in partition.entries:
            event = entry.event
            if isinstance(event, ModuleMessage) and event.kind == "request" and answered(runner, event):
                runner.receive(event, topic=TRANSITIONS)
        assert runner.events()[written:] == [], "what was answered is answered again, and not done again"
        for _ in range(100):
            due = runner.next_due()
            if due is None:
                break
            assert runner.fire(due[1]).events != (), "a timer that is due leads to something"


def answered(runner: MachineRunner[ModuleState], request: ModuleMessage) -> bool:
    """Whether the answer to a request is in the log, and still remembered when the log ends."""
    return any(
        isinstance(entry.event, ModuleMessage) and entry.event.kind == "response" and entry.event.causation_id == request.id
        and any((fact.expires_us or runner.now_us) >= runner.now_us for fact in runner.machine.remember(entry))
        for entry in runner.log
    )  # fmt: skip


def test_what_is_recorded_is_never_written_again() -> None:
    listed, found = checksums(histories.FOLDER, NAMES)
    assert found == listed


def test_every_shape_that_is_written_today_is_recorded() -> None:
    recorded: set[str] = set()
    for name in NAMES:
        for partition in histories.read(name):
            recorded |= histories.shapes(entry.event for entry in partition.entries)
    assert sorted(histories.written_today() - recorded) == [], ADVICE
