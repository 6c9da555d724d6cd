"""S12: what an event costs in the kernel's fold while ever more executions are alive, with checkpoints.

`python -m tests.benchmarks.growth [LIVE…]`, by default 10,000, 100,000 and 1,000,000 flows alive. At each size the same work is measured:
answers to flows all over the set, each decided, stamped and folded, and per 10,000 events a round of a checkpoint (states as bytes).
The log and the broker are left out: their cost does not depend on what is alive.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from typing import Any

from streams import limits, topics
from streams.log.fold import LogFold
from streams.log.snapshot import dump_state
from streams.log.types import Received
from streams.records import InputPosition, ModuleMessage, Record
from streams.testing.toys import FlowMachine, start
from tests.benchmarks.report import report

SIZES = (10_000, 100_000, 1_000_000)
ANSWERS = 40_000  # at each size
ROUNDS = 20
STEPS = 1_000_000  # nobody ends meanwhile
NOW_US = 1_767_225_600_000_000


class Flows:
    """A fold with flows alive."""

    def __init__(self) -> None:
        self.fold = LogFold(FlowMachine(), log=topics.TRANSITIONS, partition=0, partitions=1)
        self.fold.epoch, self.fold.next_offset = 1, 1
        self.alive = 0
        self._offset = 0
        self._written_from = 0
        self._chance = random.Random(7)

    def grow(self, size: int) -> None:
        """Starts flows until `size` are alive."""
        for number in range(self.alive, size):
            self._decide(topics.COMMANDS, start(f"flow-{number}", STEPS))
        self.alive = size
        self.checkpoint()

    def answer(self) -> int:
        """One answer to any of them; how many events it made."""
        name = f"flow-{self._chance.randrange(self.alive)}"
        step = self.fold.view.aggregates[name].step
        message = ModuleMessage(
            type="echo.answered", kind="response", source_module="echo", operation="echo", execution_id=name, attempt=step, status="success"
        )
        return self._decide(topics.RESPONSES, message)

    def checkpoint(self) -> None:
        """A round, without a broker to write to."""
        for _, frozen in self.fold.view.capture().aggregates:
            dump_state(FlowMachine.states, frozen)
        self._written_from = self.fold.next_offset

    def _decide(self, topic: str, record: Record) -> int:
        self._offset += 1
        position = InputPosition(topic=topic, partition=0, offset=self._offset)
        decided = self.fold.decide(Received(record=record, position=position, time_us=NOW_US + self._offset))
        if self.fold.next_offset - self._written_from >= limits.CHECKPOINT_RECORDS:
            self.checkpoint()
        return len(decided.entries)


def measure(sizes: tuple[int, ...]) -> dict[str, Any]:
    """CPU time per event at each size, and how much it grew from the first to the last.

    The sizes take turns and the median of the rounds counts: what else the machine does meanwhile meets all of them.
    """
    worlds = {size: Flows() for size in sizes}
    for size, flows in worlds.items():
        flows.grow(size)
    costs: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(ROUNDS):
        for size, flows in worlds.items():
            began = time.process_time()
            events = sum(flows.answer() for _ in range(ANSWERS // ROUNDS))
            costs[size].append((time.process_time() - began) / events * 1e6)
    medians = {size: statistics.median(each) for size, each in costs.items()}
    growth = medians[sizes[-1]] / medians[sizes[0]] - 1
    return {**{f"{size}_alive_us_per_event": round(cost, 2) for size, cost in medians.items()}, "growth_percent": round(100 * growth, 1)}


def main() -> None:
    """Measures and reports."""
    sizes = tuple(int(text) for text in sys.argv[1:]) or SIZES
    work = f"{ANSWERS} answers to flows all over the set, decided and folded, with checkpoints"
    report("S12-kernel", work, measure(sizes), bar="grows less than 30 %, aim flat", durability="memory only")


if __name__ == "__main__":
    main()
