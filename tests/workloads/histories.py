"""Recorded histories: what earlier versions have written, kept under `tests/golden/histories` and never written again.

`python -m tests.workloads.histories add NAME DEFINITION SCENARIO` records one more, `… beating NAME DEFINITION SCENARIO` one whose
operations give heartbeats, `… seed NAME N` that of a random case (`… monitored NAME N`: with a trace that collects), `… show NAME` prints
one. A file holds the definition, the scenario, the bytes of all transitions in decisions (one list for each input), and what followed from
them: after each decision the due timers and outstanding requests, in the end the views.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import orjson

from services.orchestrator.documents import read_document
from services.orchestrator.effects import request_id
from services.orchestrator.scenario import read_scenario
from services.orchestrator.view import fold
from streams.codec.avro import Codec, SchemaIds, to_json
from streams.log.types import Entry, Send
from streams.operations import HEARTBEAT, MONITOR
from streams.records import InputPosition, Json, ModuleMessage, WorkflowTransition, derived_id
from streams.topics import RESPONSES, TRANSITIONS
from tests.workloads.behaviour import PlannedSimulation
from tests.workloads.cases import draw, run_to_the_end

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FOLDER = GOLDEN / "histories"
SUMS = "SHA256SUMS"
FRAME = struct.pack(">bI", 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One recorded history."""

    name: str
    definition: dict[str, Any]
    scenario: dict[str, Any]
    decisions: tuple[tuple[WorkflowTransition, ...], ...]
    followed: list[Any]  #: after each decision; see `facts`
    views: dict[str, Any]  #: by execution id

    def entries(self, decisions: int | None = None) -> list[Entry]:
        """The first decisions as they lie in the log."""
        events = [event for decision in self.decisions[:decisions] for event in decision]
        return [
            Entry(event=event, position=InputPosition(topic=TRANSITIONS, partition=0, offset=offset)) for offset, event in enumerate(events)
        ]

    def resumed(self, decisions: int, *, checked: bool = False) -> PlannedSimulation:
        """The execution as this version finds it after so many decisions of the earlier one."""
        simulation = PlannedSimulation(self.definition, read_scenario(self.scenario), checked=checked, pinned=True)
        simulation.take_over(self.entries(decisions))
        return simulation


def facts(simulation: PlannedSimulation) -> list[Json]:
    """What an owner would do next: for each execution its next timer (microseconds), and the ids of its outstanding effects.

    Less what modules are merely told (open questions, how steps ended): that came later, changes no execution, and is told again.
    """
    return [
        [name, simulation.machine.due(state), [send.record.id for send in simulation.machine.outstanding(state) if not _is_told(send)]]
        for name, state in simulation.runner.view.states()
    ]


def _is_told(send: Send) -> bool:
    return isinstance(send.record, ModuleMessage) and send.record.kind == "notification"


@cache
def _codec(version: str) -> Codec:
    """Reads what was written under a released version's schema, as a reader of today does."""
    schema = orjson.loads((GOLDEN / "schemas" / version / "WorkflowTransition.avsc").read_bytes())
    return Codec(SchemaIds(schemas={1: schema}, record_ids={}))


def names() -> list[str]:
    """The names of all recorded histories."""
    return sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))


def read(name: str) -> History:
    """A recorded history."""
    found = orjson.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))
    codec = _codec(found["schemas"])

    def transition(body: str) -> WorkflowTransition:
        record = codec.decode(FRAME + bytes.fromhex(body))
        assert isinstance(record, WorkflowTransition)
        return record

    return History(
        name=name,
        definition=found["definition"],
        scenario=found["scenario"],
        decisions=tuple(tuple(map(transition, bodies)) for bodies in found["decisions"]),
        followed=found["followed"],
        views=found["views"],
    )


def views(events: Iterable[WorkflowTransition]) -> dict[str, Any]:
    """The view of each execution in these records."""
    by_id: dict[str, list[WorkflowTransition]] = {}
    for event in events:
        by_id.setdefault(event.execution_id, []).append(event)
    return {name: fold(story) for name, story in by_id.items()}


def shapes(events: Iterable[WorkflowTransition]) -> set[str]:
    """The shapes of records: `type` and `type.field` of what stands in their data."""
    return {shape for event in events for shape in (event.type, *(f"{event.type}.{name}" for name in event.data))}


# --- recording --------------------------------------------------------------------------------------------------------


def record(
    name: str, document: dict[str, Any], scenario: dict[str, Any], random: Random, *, monitored: bool = False, beating: bool = False
) -> bytes:
    """The file of a history: the scenario is run, then people do what is waited for.

    `monitored`: a trace begins after the first decision. `beating`: a process takes up each request of a module at once, and says so.
    """
    simulation = PlannedSimulation(document, read_scenario(scenario))
    decisions: list[list[str]] = []
    followed: list[Any] = []
    codec, seen = Codec(SchemaIds.local()), 0
    for _ in run_to_the_end(simulation, random):
        events = simulation.runner.events()
        if len(events) > seen:
            decisions.append([codec.encode(event)[len(FRAME) :].hex() for event in events[seen:]])
            followed.append(facts(simulation))
            if monitored and not seen:
                simulation._perform(Send(topic=RESPONSES, key="", record=_begin_to_monitor(events[0])))
            for event in events[seen:]:
                if beating and event.type == "step.started" and "module" in event.data:
                    simulation._arrive(0, RESPONSES, _heartbeat(event))
            seen = len(events)
    released = sorted((GOLDEN / "schemas").iterdir(), key=lambda path: int(path.name.removeprefix("v")))
    content = {
        "schemas": released[-1].name,
        "definition": document,
        "scenario": scenario,
        "decisions": decisions,
        "followed": followed,
        "views": views(simulation.runner.events()),
    }
    return gzip.compress(orjson.dumps(content), mtime=0)


def _begin_to_monitor(event: WorkflowTransition) -> ModuleMessage:
    """What the module trace says to an execution that it was asked to monitor."""
    return ModuleMessage(
        id=derived_id("monitor", event.execution_id), type="trace.notified", time=event.time, data={"module": "trace", "id": "trace-1"},
        kind="notification", source_module="trace", target_module="orchestrator", operation=MONITOR, execution_id=event.execution_id,
    )  # fmt: skip


def _heartbeat(event: WorkflowTransition) -> ModuleMessage:
    """What a process says that has taken up the attempt and done a little; it promises to say more within a minute."""
    return ModuleMessage(
        id=derived_id("heartbeat", event.id), type="workflow.requested", time=event.time,
        data={"timeout_ms": 60_000, "by": "process-1", "details": {"attempt": event.attempt}}, kind="request", source_module="module",
        target_module="workflow", operation=HEARTBEAT, execution_id=event.execution_id, step_id=event.step_id, attempt=event.attempt,
        causation_id=request_id(event.execution_id, event.step_id or "", event.attempt), reply_to="process-1",
    )  # fmt: skip


def add(name: str, document: dict[str, Any], scenario: dict[str, Any], random: Random, **how: bool) -> None:
    """Records a history under a new name. Raises `FileExistsError`: what exists is never written again."""
    keep(FOLDER, name, record(name, document, scenario, random, **how))


def keep(folder: Path, name: str, content: bytes) -> None:
    """Writes a history and its checksum. Raises `FileExistsError`: what exists is never written again."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.json.gz").open("xb") as file:
        file.write(content)
    with (folder / SUMS).open("a") as file:
        file.write(f"{hashlib.sha256(content).hexdigest()}  {name}.json.gz\n")


def checksums(folder: Path, names: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """By file: the checksums that are listed, and those of the files as they are."""
    listed = {name: digest for digest, name in (line.split("  ") for line in (folder / SUMS).read_text().splitlines())}
    found = {f"{name}.json.gz": hashlib.sha256((folder / f"{name}.json.gz").read_bytes()).hexdigest() for name in names}
    return listed, found


def main(arguments: list[str]) -> None:
    """See the module."""
    match arguments:
        case ["add" | "beating" as how, name, definition, scenario]:
            document, given = (read_document(Path(path).read_text()) for path in (definition, scenario))
            assert isinstance(document, dict)
            assert isinstance(given, dict)
            add(name, document, given, Random(0), beating=how == "beating")
        case ["seed" | "monitored" as how, name, seed]:
            case = draw(Random(int(seed)))
            add(name, case.document, case.scenario, case.random, monitored=how == "monitored")
        case ["show", name]:
            for decision in read(name).decisions:
                for event in decision:
                    sys.stdout.write(orjson.dumps(to_json(event)).decode() + "\n")
                sys.stdout.write("\n")
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
