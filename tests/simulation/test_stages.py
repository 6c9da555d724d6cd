"""The match and correlate stages under a fixed number of seeds, and that each of their checks is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams.testing.simulation.stages.world import run_stages
from tests.simulation.runs import BLOCK, run_block
from tests.simulation.stage_mutations import MUTATIONS

#: As many as fit into about 40 s. `make simulate-stages SEEDS=N` runs any number.
SEEDS = 250
#: Seeds in which a mutation must be caught.
WITHIN = 150
#: Where the first seed that catches a mutation is late: the one of the last search, tried first (see test_mutations).
CAUGHT_LAST = {
    "what_was_said_is_not_muted": 18,
    "everything_is_muted": 15,
    "groups_have_one_slot": 523,
    "positions_come_before_composites": 64,
    "offset_is_not_compared": 99,
    "clocks_run_ahead_of_matches": 75,
    "successors_begin_with_what_they_say": 51,
    "matches_are_counted_for_all_rules": 4,
    "marks_do_not_wait_for_their_composites": 350,
    "what_is_taken_back_stays_read": 145,
    "actions_are_finished_first": 587,
}
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_each_composite_is_said_once_and_none_is_missing(first: int) -> None:
    block = run_block((first, BLOCK), run_stages)
    assert [(outcome.seed, outcome.violations) for outcome in block.failed] == []
    # The storm was one: owners lost their partitions, matches were written twice, and yet much was said.
    assert block.totals["takeovers"] > 2 * BLOCK
    assert block.totals["void"] > 0
    assert block.totals["repeated"] > 0
    assert block.totals["composites"] > 5 * BLOCK
    assert block.totals["revisions"] > 0
    assert block.totals["read"] > BLOCK  # composites, by other rules
    assert block.totals["acts"] > 5 * BLOCK
    assert block.totals["again"] > 0  # actions were performed by two owners, under one key


def test_a_seed_gives_one_history_whatever_the_order_of_hashes() -> None:
    here = [run_stages(seed).digest for seed in range(8)]
    assert len(set(here)) == 8
    script = "from streams.testing.simulation.stages.world import run_stages; print([run_stages(seed).digest for seed in range(8)])"
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    there = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == str(here)


def test_a_trace_changes_nothing_and_tells_what_happened() -> None:
    lines: list[str] = []
    assert run_stages(7, trace=lines.append).digest == run_stages(7).digest
    assert any("takeover.done" in line for line in lines)
    assert any("log.fenced#1" in line for line in lines)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_check_that_is_switched_off_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, invariants, first = MUTATIONS[name]
    mutation(monkeypatch)
    outcomes = (run_stages(seed) for seed in (CAUGHT_LAST.get(name, first), *range(first, first + WITHIN)))
    caught = next((outcome.seed for outcome in outcomes if not outcome.ok and outcome.violations[0][0] in invariants), None)
    assert caught is not None, f"{name}: none of {invariants} caught it within {WITHIN} seeds from {first} on"
