"""`python -m tests.simulation SEED [--trace]` runs one seed; `--seeds N [--from K] [--jobs J]` runs many. Exit code 1 if any fails.

With `--stages` the match and correlate stages are run, with `--history` the sink, otherwise the log kernel.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable

from streams.testing.simulation.stages.world import run_stages
from streams.testing.simulation.world import Outcome, run_seed
from tests.simulation.history.world import run_history
from tests.simulation.runs import run_many


def main() -> None:
    """Reads the arguments and runs."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Runs the log kernel, or the stages, under seeds.")
    parser.add_argument("seed", type=int, nargs="?", help="run this seed alone")
    parser.add_argument("--stages", action="store_true", help="run the match and correlate stages instead of the log kernel")
    parser.add_argument("--history", action="store_true", help="run the sink of the history instead of the log kernel")
    parser.add_argument("--trace", action="store_true", help="with SEED: print everything that happens")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run (default: 1000)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    given = parser.parse_args()
    run = run_stages if given.stages else run_history if given.history else run_seed
    sys.exit(_one(run, given.seed, given.trace) if given.seed is not None else _many(run, given.first, given.seeds, given.jobs))


def _one(run: Callable[..., Outcome], seed: int, trace: bool) -> int:
    outcome = run(seed, trace=_say if trace else None)
    _say(f"seed {seed}: {'clean' if outcome.ok else 'FAILED'}, {outcome.virtual_s:.1f} s, {outcome.steps} steps, {outcome.digest}")
    _say(" ".join(f"{name}={count}" for name, count in outcome.counts.items()))
    _tell_violations(outcome)
    return 0 if outcome.ok else 1


def _many(run: Callable[..., Outcome], first: int, count: int, jobs: int) -> int:
    began, told, done = time.monotonic(), 0.0, 0
    failed: list[int] = []
    totals: Counter[str] = Counter()
    for block in run_many(first, count, jobs, run):
        done += block.count
        totals.update(block.totals)
        for outcome in block.failed:
            failed.append(outcome.seed)
            _say(f"seed {outcome.seed} FAILED:")
            _tell_violations(outcome)
        elapsed = time.monotonic() - began
        if elapsed - told > 10:
            told = elapsed
            sys.stderr.write(f"{done}/{count} seeds, {len(failed)} failed, {done / elapsed:.0f}/s\n")
    elapsed = time.monotonic() - began
    _say(f"{done} seeds from {first} on in {elapsed:.0f} s: {len(failed)} failed")
    _say(" ".join(f"{name}={number}" for name, number in sorted(totals.items())))
    if failed:
        stages = " --stages" if run is run_stages else ""
        _say(f"python -m tests.simulation{stages} SEED --trace shows what happens; failed: " + " ".join(map(str, sorted(failed))))
    return 1 if failed else 0


def _tell_violations(outcome: Outcome) -> None:
    for invariant, message in outcome.violations:
        _say(f"  {invariant}: {message}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
