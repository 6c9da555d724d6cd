"""Many seeds, one after the other or on several cores."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from streams.testing.simulation.world import Outcome, run_seed

#: Seeds that one job runs before it reports.
BLOCK = 50

Run = Callable[[int], Outcome]


@dataclass(slots=True)
class Block:
    """What came of some seeds."""

    first: int
    count: int
    failed: list[Outcome] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)


def run_block(span: tuple[int, int], run: Run = run_seed) -> Block:
    """Runs the seeds [first, first + count)."""
    first, count = span
    block = Block(first, count)
    for seed in range(first, first + count):
        outcome = run(seed)
        block.totals.update(outcome.counts)
        block.totals["steps"] += outcome.steps
        if not outcome.ok:
            block.failed.append(outcome)
    return block


def run_many(first: int, count: int, jobs: int, run: Run = run_seed) -> Iterator[Block]:
    """Runs `count` seeds from `first` on with `jobs` processes; blocks come in the order in which they are done."""
    spans = [(start, min(BLOCK, first + count - start)) for start in range(first, first + count, BLOCK)]
    if jobs <= 1:
        yield from map(partial(run_block, run=run), spans)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(partial(run_block, run=run), spans)
