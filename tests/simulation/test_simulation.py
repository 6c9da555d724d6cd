"""The kernel under a fixed number of seeds, and the simulation's own promises: one seed, one history."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams.testing.simulation.world import run_seed
from tests.simulation.runs import BLOCK, run_block

#: As many as fit into a minute of a processor. `make simulate SEEDS=N` runs any number.
SEEDS = 1500
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("first", range(0, SEEDS, 5 * BLOCK))
def test_nothing_is_lost_or_repeated(first: int) -> None:
    block = run_block((first, 5 * BLOCK))
    assert [(outcome.seed, outcome.violations) for outcome in block.failed] == []
    # The storm was one: owners lost their partitions, and what they appended afterwards did not count.
    assert block.totals["void"] > 0
    assert block.totals["repeat"] > 0
    assert block.totals["fence"] > 5 * BLOCK * 4
    assert block.totals["resting"] > 0


def test_a_seed_gives_one_history_whatever_the_order_of_hashes() -> None:
    here = [run_seed(seed).digest for seed in range(20)]
    assert len(set(here)) == 20
    script = "from streams.testing.simulation.world import run_seed; print([run_seed(seed).digest for seed in range(20)])"
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        there = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        assert there.stdout.strip() == str(here)


def test_a_trace_changes_nothing_and_tells_what_happened() -> None:
    lines: list[str] = []
    assert run_seed(7, trace=lines.append).digest == run_seed(7).digest
    assert any("has taken over 0" in line for line in lines)
    assert any("log.fenced#1" in line for line in lines)
