"""The sink under a fixed number of seeds, and that each of its safeguards is needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from tests.simulation.history.mutations import MUTATIONS
from tests.simulation.history.world import run_history
from tests.simulation.runs import run_block

#: As many as fit into about 15 s. `make simulate-history SEEDS=N` runs any number.
SEEDS = 30
#: Seeds in which a mutation must be caught.
WITHIN = 150
#: Where the first seed that catches a mutation is not among the first: the one of the last search, tried first (see test_mutations).
CAUGHT_LAST = {
    "offset is not compared": 3,
    "blocks are decided afterwards": 4,
    "others are not followed": 2,
    "remade topics are not noticed": 10,
    "what was reached is of any topic": 6,
}


@pytest.mark.parametrize("first", range(0, SEEDS, 15))
def test_every_offset_is_one_row_of_the_right_table(first: int) -> None:
    block = run_block((first, 15), run_history)
    assert [(outcome.seed, outcome.violations) for outcome in block.failed] == []
    # The storm was one: sinks died, slept and came back, inserts were repeated, refused and came too late.
    assert min(block.totals[name] for name in ("kills", "stops", "deduplicated", "refused", "expired", "retained", "blocks lost")) > 0
    assert block.totals["offsets"] > 100 * 15


def violated(seeds: Iterable[int]) -> Iterator[str]:
    for seed in seeds:
        yield from {invariant for invariant, _ in run_history(seed).violations}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_safeguard_that_is_switched_off_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, invariant = MUTATIONS[name]
    mutation(monkeypatch)
    assert invariant in violated((CAUGHT_LAST.get(name, 0), *range(WITHIN))), f"{name}: {invariant} did not catch it within {WITHIN} seeds"
