"""The transitions of one execution as the tables have them, up to an instant: what the state at that instant is folded from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from services.history.erase_rows import erasure_of
from services.history.query import QueryResult
from streams.codec.avro import record_from_plain
from streams.errors import Defect, NotFound, Refused
from streams.records import WorkflowTransition, from_micros, iso, to_micros

#: Transitions that are read at a time; a payload has at most a MiB, most have some hundred bytes.
PAGE = 2_000

_COLUMNS = (
    "id", "type", "source", "subject", "tenant", "correlation_id", "causation_id", "execution_id", "workflow_id", "workflow_version",
    "step_id", "attempt", "status", "aggregate_id", "sequence", "epoch",
)  # fmt: skip
_SQL = f"""
SELECT {", ".join(_COLUMNS)}, data_text AS data, toUnixTimestamp64Micro(time) AS micros, input.topic AS input_topic,
  input.partition AS input_partition, input.offset AS input_offset, _offset
FROM workflow_transitions
WHERE execution_id = {{execution:String}} AND _offset > {{after:Int64}} AND time <= fromUnixTimestamp64Micro({{at:Int64}}, 'UTC')
ORDER BY _offset LIMIT {PAGE}
"""
_BEGAN = """
SELECT toUnixTimestamp64Micro(min(time)) AS micros FROM workflow_transitions
WHERE execution_id = {execution:String} AND sequence > 0 HAVING count() > 0
"""


class Asked(Protocol):
    """Who answers SQL: the store."""

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> QueryResult:
        """See `store.History.query`."""


async def transitions_at(history: Asked, execution_id: str, at: datetime) -> list[WorkflowTransition]:
    """The transitions of an execution with times up to `at`, inclusive, in the order of the log.

    Raises `NotFound` (`execution.unknown`, `execution.not-begun`) if none of them began it, `Refused` (`history.erased`,
    `history.beyond-retention`) if what the state follows from is not there any more, and what a query raises.
    """
    found: list[WorkflowTransition] = []
    after = -1
    while True:
        rows = (await history.query(_SQL, {"execution": execution_id, "after": after, "at": to_micros(at)})).objects()
        found += map(_transition, rows)
        if len(rows) < PAGE:
            break
        after = int(rows[-1]["_offset"])
    lived = [transition for transition in found if transition.sequence]
    if not lived:
        began = (await history.query(_BEGAN, {"execution": execution_id})).objects()
        if not began:
            raise NotFound("execution.unknown", f"The history has no execution {execution_id!r}.")
        later = iso(from_micros(int(began[0]["micros"])))
        raise NotFound("execution.not-begun", f"The execution {execution_id!r} began later, at {later}.")
    _check_whole(execution_id, lived)
    return found


def _check_whole(execution_id: str, lived: Sequence[WorkflowTransition]) -> None:
    """Raises unless a state can be folded: it follows from every transition from the first on, with its payload."""
    if lived[0].sequence != 1:
        raise Refused(
            "history.beyond-retention",
            f"What happened to the execution {execution_id!r} before {iso(lived[0].time)} is beyond the history's retention.",
            advice="While the topic has it, `mplp workflow state --at` folds the log.",
        )
    erased = _first_erased(lived)
    if erased is not None:
        raise Refused(
            "history.erased",
            f"Payloads of the execution {execution_id!r} were erased: its state cannot be told from {iso(erased.time)} on.",
            advice="Its status and times are in executions_at and steps_at.",
        )
    numbers = [transition.sequence for transition in lived]
    if numbers != list(range(1, len(lived) + 1)):
        raise Defect("history.incomplete", f"Transitions of {execution_id!r} are missing. `mplp history verify` says which.")


def _first_erased(lived: Iterable[WorkflowTransition]) -> WorkflowTransition | None:
    return next((transition for transition in lived if erasure_of(transition.data) is not None), None)


def _transition(row: Mapping[str, Any]) -> WorkflowTransition:
    place = None if row["input_topic"] is None else {name: row[f"input_{name}"] for name in ("topic", "partition", "offset")}
    plain = {**{name: row[name] for name in _COLUMNS}, "data": row["data"], "time": int(row["micros"]), "input": place}
    record = record_from_plain("WorkflowTransition", plain)
    assert isinstance(record, WorkflowTransition)
    return record
