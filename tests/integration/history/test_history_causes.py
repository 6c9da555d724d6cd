"""`causes(id = …)` against a plain walk in Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from services.history.store import History
from streams.settings import Settings
from tests.workloads.history_rows import Size, event, execution, fill

SIZE = Size(executions=300, events=5_000)


@pytest.fixture(scope="module")
async def small(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[History]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("causes"))
    async with History(settings) as history:
        await history._keeper.run(lambda client: fill(client, SIZE))
        yield history


async def rows_of(history: History, sql: str) -> list[list[Any]]:
    return (await history.query(sql)).rows()


class Walk:
    """The rules of `causes`, in Python over all records."""

    def __init__(self, rows: list[list[Any]]) -> None:
        self.by_name: dict[str, set[str]] = defaultdict(set)
        self.by_reference: dict[str, set[str]] = defaultdict(set)
        self.names: dict[str, set[str]] = defaultdict(set)
        self.references: dict[str, set[str]] = defaultdict(set)
        for record, id_, type_, cause, execution_id, step, attempt, sequence, members in rows:
            names, references = {id_}, {cause, *members}
            at = (execution_id, step, attempt)
            if record == "transition":
                names |= {f"{type_}{at}"} if type_ in ("step.started", "step.retried", "execution.started") else set()
                if not cause and sequence > 1:
                    references = {_before(type_, at)}
            elif record == "request":
                names |= {cause}
                references = {f"step.started{at}"}
            for name in names - {""}:
                self.by_name[name].add(id_)
                self.names[id_].add(name)
            for name in references - {""}:
                self.by_reference[name].add(id_)
                self.references[id_].add(name)

    def distances(self, start: str) -> dict[str, int]:
        found = {start: 0}
        for sign, out, back in ((-1, self.references, self.by_name), (1, self.names, self.by_reference)):
            seen, edge, distance = {start}, {start}, 0
            while edge:
                edge = {other for id_ in edge for name in out[id_] for other in back[name]} - seen
                seen |= edge
                distance += sign
                found.update(dict.fromkeys(edge, distance))
        return found


def _before(type_: str, at: tuple[str, str, int]) -> str:
    execution_id, step, attempt = at
    if type_ == "step.started" and attempt > 1:
        return f"step.retried{(execution_id, step, attempt - 1)}"
    return f"step.started{at}" if type_ != "step.started" and step else f"execution.started{(execution_id, '', 0)}"


ALL = """
SELECT 'transition', id, type, ifNull(causation_id, ''), execution_id, ifNull(step_id, ''), attempt, sequence, [] FROM workflow_transitions
UNION ALL
SELECT kind, id, type, ifNull(causation_id, ''), execution_id, ifNull(step_id, ''), attempt, sequence, [] FROM module_messages
UNION ALL
SELECT 'event', id, type, ifNull(causation_id, ''), '', '', 0, 0, [] FROM system_events
UNION ALL
SELECT 'composite', id, type, ifNull(causation_id, ''), '', '', 0, 0, event_ids FROM composite_events
UNION ALL
SELECT 'delivery', id, type, event_id, '', '', 0, 0, [] FROM deliveries
UNION ALL
SELECT 'command', id, type, ifNull(causation_id, ''), '', '', 0, 0, [] FROM workflow_commands"""


@pytest.fixture(scope="module")
async def walk(small: History) -> Walk:
    return Walk(await rows_of(small, ALL))


_ENDED = f"SELECT id FROM workflow_transitions WHERE execution_id = {execution(57)}"
STARTS = {
    "an event that a composite, a delivery and another event follow": f"SELECT {event(400 + 1)}",
    "an event with a delivery": f"SELECT {event(400)}",
    "the end of an execution": f"SELECT id FROM workflow_transitions WHERE execution_id = {execution(11)} AND type = 'execution.completed'",
    "a command": f"SELECT id FROM workflow_commands WHERE execution_id = {execution(11)}",
    "a kept request": f"SELECT id FROM module_messages WHERE execution_id = {execution(11)} AND kind = 'request' AND step_id = 'step-2'",
    "the end after two time-outs": f"{_ENDED} AND type = 'execution.failed'",
    "a start by a timer": f"{_ENDED} AND attempt = 1 AND type = 'step.retried'",
    "nothing": "SELECT 'nobody'",
}


@pytest.mark.parametrize("start", STARTS)
async def test_a_walk_finds_what_the_rules_say(small: History, walk: Walk, start: str) -> None:
    id_ = (await rows_of(small, STARTS[start]))[0][0]
    result = await small.query("SELECT id, distance, record FROM causes(id = {id:String})", {"id": id_})
    expected = {} if start == "nothing" else walk.distances(id_)
    assert {row[0]: row[1] for row in result.rows()} == expected
    assert len(result.rows()) == len(expected)
    assert start == "nothing" or len(expected) > 1


async def test_the_view_itself_says_the_same(small: History) -> None:
    """As other clients ask it: not written out."""
    id_ = (await rows_of(small, STARTS["the end after two time-outs"]))[0][0]
    mine = await rows_of(small, f"SELECT * FROM causes(id = '{id_}') ORDER BY ALL")
    plain = await small._keeper.run(
        lambda client: client.raw_query(f"SELECT * FROM causes(id = '{id_}') ORDER BY ALL", fmt="JSONCompactEachRow").splitlines()
    )
    assert len(plain) == len(mine) > 1
    assert [orjson.loads(line)[:5] for line in plain] == [row[:5] for row in mine]


async def test_a_loop_ends(small: History) -> None:
    columns = "id, type, causation_id, _topic, _partition, _offset, _timestamp"
    link = "concat('loop-', toString((number + 2) % 3))"
    values = f"concat('loop-', toString(number)), 'loop', {link}, 'loop', 0, number, toDateTime64('2026-01-05 00:00:00', 3)"
    insert = f"INSERT INTO system_events ({columns}) SELECT {values} FROM numbers(3)"
    await small._keeper.run(lambda client: client.command(insert))
    rows = await rows_of(small, "SELECT id, distance FROM causes(id = 'loop-0')")
    assert {row[0] for row in rows} == {"loop-0", "loop-1", "loop-2"}
    assert dict(rows)["loop-0"] == 0
