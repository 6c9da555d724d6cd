"""Random workflows on random paths: after every input the fold of the log equals the live state, and the laws of an execution hold."""

from __future__ import annotations

import os
from random import Random

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.orchestrator.definition import Definition, ListRole, StepList
from services.orchestrator.definitions import validate
from services.orchestrator.evolve import evolve
from services.orchestrator.state import ENDED, TERMINAL, Execution, split_instance
from services.orchestrator.store import AnyModule
from streams.codec.avro import Codec, SchemaIds
from streams.records import WorkflowTransition
from tests.workloads import laws
from tests.workloads.behaviour import PlannedSimulation
from tests.workloads.cases import draw, known_kinds, run_to_the_end, simulate
from tests.workloads.definitions import WEIGHTS

CODEC = Codec(SchemaIds.local())
#: Seeds that are tried in every run, beside Hypothesis's cases; more with `MPLP_SEEDS=1000`.
SEEDS = int(os.environ.get("MPLP_SEEDS", "60"))


def is_spare(definition: Definition, instance: str) -> bool:
    """Whether a step belongs to a fallback: one that was taken before a retry of what is around it may not be needed again."""
    steps: StepList | None = definition.places[split_instance(instance)[0]].steps
    while steps is not None and steps.role is not ListRole.FALLBACK:
        steps = None if steps.owner is None else definition.places[steps.owner].steps
    return steps is not None


def check_state(simulation: PlannedSimulation) -> None:
    """What holds of every execution at every moment."""
    state = simulation.runner.view.state("test")
    if state is None:
        return
    machine = simulation.machine
    written = orjson.dumps(machine.states.dump(state))
    assert machine.states.load(orjson.loads(written)) == state, "a snapshot gives the very state back"
    asked = {send.record.id for send in machine.outstanding(state) if getattr(send.record, "kind", "") == "request"}
    assert len(asked) == sum(
        step.status == "running" and bool(step.module) and step.fallback is None and step.attempt not in step.answered
        for step in state.steps.values()
    ), "every attempt that waits for a module is asked again by a new owner, and no other (an answered condition runs its branch)"
    live = {name for name, step in state.steps.items() if step.status in ("scheduled", "running", "waiting")}
    assert set(state.live) == live
    due = machine.due(state)
    missed = any(not state.step(name).movable for name in state.live)  # an instant that passed in a pause is over after it
    assert due is None or due >= simulation.runner.now_us or missed, "a timer that is due has fired with the input that came after it"
    if state.status in TERMINAL:
        assert not live
        assert due is None
        assert all(step.status in ENDED or is_spare(simulation.definition, name) for name, step in state.steps.items())
    elif state.status == "running":
        assert live, "an execution that runs has something that runs or waits"


def read_back(events: list[WorkflowTransition]) -> Execution | None:
    """The fold of the log as a reader sees it: from bytes."""
    state: Execution | None = None
    for event in events:
        if event.sequence and event.execution_id == "test":
            decoded = CODEC.decode(CODEC.encode(event))
            assert isinstance(decoded, WorkflowTransition)
            state = evolve(state, decoded)
    return state


def check_case(random: Random) -> PlannedSimulation:
    """Draws a case, runs it to its end, and checks everything on the way."""
    case = draw(random)
    assert validate(case.document, AnyModule()) == []
    simulation = simulate(case)
    for _ in run_to_the_end(simulation, case.random):
        check_state(simulation)
    events = simulation.runner.events()
    try:
        laws.check(simulation.definition, events, "test")
    except AssertionError as error:
        error.add_note(laws.describe(events))
        raise
    assert read_back(events) == simulation.runner.view.state("test")
    return simulation


@settings(
    max_examples=int(os.environ.get("MPLP_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.randoms(use_true_random=False))
@example(Random(1))
def test_replay_equals_live_and_the_laws_hold(random: Random) -> None:
    check_case(random)


@pytest.mark.parametrize("block", range(0, SEEDS, 20))
def test_cases_of_plain_seeds_hold_too(block: int) -> None:
    for seed in range(block, min(block + 20, SEEDS)):
        try:
            check_case(Random(seed))
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


def test_all_step_types_are_drawn() -> None:
    assert known_kinds() <= set(WEIGHTS)
    drawn: set[str] = set()
    for seed in range(150):
        simulation = simulate(draw(Random(seed)), checked=False)
        drawn |= {place.step.type for place in simulation.definition.places.values()}
    assert drawn == known_kinds()
