"""A test of the tests: each check of the kernel, switched off, is caught by the invariant that is named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from streams.testing.simulation.world import run_seed
from tests.simulation.mutations import MUTATIONS

#: Seeds in which a mutation must be caught.
WITHIN = 3000
#: Where the first seed that catches a mutation is late: the one of the last search, tried first. Then all are, as a change of the kernel
#: or of its simulation may have moved it (look for it again, if this test has become slow).
CAUGHT_LAST = {
    "fence_is_not_read_back": 344,
    "epochs_are_not_judged": 326,
    "checkpoints_are_dated_when_they_are_written": 62,
    "refusals_of_one_moment_share_an_id": 139,
    "what_was_looked_for_in_vain_stays_absent": 4625,
    "what_rests_is_not_found": 32,
    "what_changes_meanwhile_rests": 1130,
}


def violated(seeds: Iterable[int]) -> Iterator[tuple[int, str]]:
    """Those of the seeds that fail, each with the invariant that was violated first."""
    for seed in seeds:
        outcome = run_seed(seed)
        if not outcome.ok:
            yield seed, outcome.violations[0][0]


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_check_that_is_switched_off_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, invariant = MUTATIONS[name]
    mutation(monkeypatch)
    seeds = (CAUGHT_LAST.get(name, 0), *range(WITHIN))
    caught = next((seed for seed, by in violated(seeds) if by == invariant), None)
    assert caught is not None, f"{name}: {invariant} did not catch it within {WITHIN} seeds"


def test_without_a_mutation_nothing_is_caught() -> None:
    assert list(violated(range(50))) == []
