"""Seeds that found something, with what they found. They stay, so that it does not come back."""

from __future__ import annotations

import pytest

from streams.testing.simulation.world import run_seed

FOUND = {
    1539: "What came back while the log was folded, and did not change, was taken for changed at the next checkpoint: the process failed.",
    10663: "A member that was taken out of the group while its join waited was never told (a fault of the simulation).",
    18443: "An owner that had lost its hold said that it served, with states of before, until it began to claim again.",
    26381: "A zombie that had just woken was taken for the owner at rest (a fault of the simulation).",
    40726: "A fence of a process that had died was stored late, and nobody had to append afterwards (a fault of the simulation).",
    76214: "A run was called at rest while the group was sharing its partitions anew (a fault of the simulation).",
    2371: "A reader waited for replication that had just happened (a fault of the simulation).",
    161: "A fact that had been looked for before it was one was not found after the next checkpoint: a repeated command counted twice.",
    3: "A rebalance left us the partition, but the broker could not be asked whose the log was: it stayed suspended for ever.",
    146: "Two requests refused at one moment after a takeover got one event id, so that readers ignored the second.",
}


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_does_not_come_back(seed: int) -> None:
    assert run_seed(seed).violations == []
