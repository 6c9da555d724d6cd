"""What executions cost in memory: after many that finished, many that are alive, in the kernel's fold with the real machine.

`python -m tests.benchmarks.memory [LIVE] [FINISHED]`, by default 100,000 alive after 1,000,000 finished: three steps each on a module
elsewhere, results of 900 bytes. Every execution goes through `decide` and `evolve`, is captured and parked as a checkpoint does it, with
the log and the topics in memory left out (they are the broker's). Finished ones beyond the first 20,000 are entered into the
index alone, which is all that is left of them.
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Any

from services.orchestrator.effects import request_id
from services.orchestrator.machine import OrchestratorMachine
from services.orchestrator.store import AnyModule, DefinitionStore
from streams import topics
from streams.log.fold import LogFold
from streams.log.index import Entry, merge, segment_of
from streams.log.types import Received
from streams.records import InputPosition, ModuleMessage, Record, WorkflowCommand
from tests.benchmarks.report import report

PARKED_FOR_REAL = 20_000
ROUND = 5_000
NOW_US = 1_767_225_600_000_000
STEPS = [
    {"id": f"step-{number}", "type": "module-operation", "module": "elsewhere", "operation": "work", "parameters": {"number": number}}
    | ({"dependencies": [f"step-{number - 1}"]} if number > 1 else {})
    for number in (1, 2, 3)
]
DEFINITION = {"workflow": {"id": "three", "name": "three", "version": "1.0.0", "steps": STEPS}}


class Executions:
    """A fold of the orchestrator, and inputs for it."""

    def __init__(self) -> None:
        self.fold = LogFold(OrchestratorMachine(DefinitionStore(AnyModule()), []), log=topics.TRANSITIONS, partition=0, partitions=1)
        self.fold.epoch, self.fold.next_offset = 1, 1
        self.machine: Any = self.fold.machine
        self.hash = self.machine.definitions.admit(DEFINITION).hash
        self._offsets = {topics.COMMANDS: 0, topics.RESPONSES: 0}

    def start(self, name: str) -> None:
        """Starts an execution: its first step asks."""
        command = WorkflowCommand(
            type="workflow.start", subject=name, execution_id=name, command="start", data={"definition_hash": self.hash, "input": {}}
        )
        self._decide(topics.COMMANDS, command)

    def answer(self, name: str, step: int) -> None:
        """Answers its step with 900 bytes."""
        text = f"{name}-{step}".ljust(880, ".")
        message = ModuleMessage(
            type="elsewhere.answered", kind="response", source_module="elsewhere", operation="work", status="success", execution_id=name,
            step_id=f"step-{step}", attempt=1, causation_id=request_id(name, f"step-{step}", 1), data={"text": text},
        )  # fmt: skip
        self._decide(topics.RESPONSES, message)

    def _decide(self, topic: str, record: Record) -> None:
        self._offsets[topic] += 1
        position = InputPosition(topic=topic, partition=0, offset=self._offsets[topic])
        self.fold.decide(Received(record=record, position=position, time_us=NOW_US))

    def checkpoint(self) -> None:
        """Parks what ended, as `streams.log.checkpoint` does; returns nothing: the snapshots are the broker's."""
        view = self.fold.view
        captured = view.capture()
        ended = [(name, frozen) for name, frozen in captured.aggregates if frozen.state.status == "completed"]
        self.index([Entry(name, number, NOW_US + 10**12) for number, (name, _) in enumerate(ended)])
        for name, frozen in ended:
            view.evict(name, frozen.sequence, self.fold.next_offset)
        view.forget_facts(captured.facts)

    def index(self, entries: list[Entry]) -> None:
        """Adds a segment to the index of what is parked."""
        index, new = self.fold.view.parked, segment_of(entries)
        if len(new):
            count = index.mergeable(len(new))
            index.replace(count, merge([*index.segments[-count:], new], NOW_US) if count else new)


def rss_mib() -> float:
    """Resident memory of this process."""
    gc.collect()
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096 / 2**20


def measure(live: int, finished: int) -> dict[str, Any]:
    """Both figures, one after the other."""
    executions = Executions()
    base = rss_mib()
    began = time.perf_counter()
    real = min(finished, PARKED_FOR_REAL)
    for number in range(real):
        name = f"0197f3c1-finished-{number:08d}"
        executions.start(name)
        for step in (1, 2, 3):
            executions.answer(name, step)
        if number % ROUND == ROUND - 1:
            executions.checkpoint()
    executions.checkpoint()
    per_execution_us = (time.perf_counter() - began) / max(1, real) * 1e6
    for first in range(real, finished, ROUND):
        executions.index(
            [Entry(f"0197f3c1-finished-{number:08d}", number, NOW_US + 10**12) for number in range(first, min(finished, first + ROUND))]
        )
    after_finished = rss_mib()
    for number in range(live):
        name = f"0197f3c1-live-{number:08d}"
        executions.start(name)
        executions.answer(name, 1)
        executions.answer(name, 2)
        if number % ROUND == ROUND - 1:
            executions.checkpoint()
    executions.checkpoint()
    after_live = rss_mib()
    assert len(executions.fold.view.aggregates) == live
    assert len(executions.fold.view.parked) == finished
    return {
        "live": live,
        "finished": finished,
        "interpreter_mib": round(base),
        "finished_mib": round(after_finished - base, 1),
        "bytes_per_finished": round((after_finished - base) * 2**20 / max(1, finished)),
        "live_mib": round(after_live - after_finished, 1),
        "bytes_per_live": round((after_live - after_finished) * 2**20 / max(1, live)),
        "total_mib": round(after_live),
        "decide_and_evolve_us_per_execution": round(per_execution_us),
    }


def main() -> None:
    """Measures and reports."""
    live, finished = map(int, sys.argv[1:3]) if len(sys.argv) > 2 else (100_000, 1_000_000)
    figures = measure(live, finished)
    work = "executions of three steps with results of 900 bytes: some alive after many that finished"
    report("memory", work, figures, bar="100,000 alive after 1,000,000 finished in 2 GiB", durability="memory only")


if __name__ == "__main__":
    main()
