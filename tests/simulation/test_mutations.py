"""A test of the tests: each check of the kernel, switched off, is caught within the seeds of CI, by the invariant that is named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streams.testing.simulation.world import run_seed
from tests.simulation.mutations import MUTATIONS
from tests.simulation.test_simulation import SEEDS


def violated(seeds: int) -> Iterator[tuple[int, str]]:
    """Seeds that fail, each with the invariant that was violated first."""
    for seed in range(seeds):
        outcome = run_seed(seed)
        if not outcome.ok:
            yield seed, outcome.violations[0][0]


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_check_that_is_switched_off_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, invariant = MUTATIONS[name]
    mutation(monkeypatch)
    caught = next((seed for seed, by in violated(SEEDS) if by == invariant), None)
    assert caught is not None, f"{name}: {invariant} did not catch it within {SEEDS} seeds"


def test_without_a_mutation_nothing_is_caught() -> None:
    assert list(violated(200)) == []
