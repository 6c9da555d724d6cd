"""The first hour of a user: each thing that the README promises, through the shell alone."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.acceptance.product import Product, end_offsets, run_many

EXAMPLE = "examples/multi-agent-collaboration.json"


def orders(customer: str, count: int, type_: str = "order.failed") -> str:
    lines = [
        {"type": type_, "source": "shop", "subject": f"{customer}-{n}", "data": {"customer": customer, "total": n}} for n in range(count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_the_example_runs_unchanged_and_each_transition_is_found_once_in_sql(product: Product) -> None:
    answer = product.mplp("workflow", "run", EXAMPLE, "--wait", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["status"] == "completed"
    execution = answer.json["execution_id"]
    shown = product.mplp("workflow", "show", execution, "--json").json
    sql = "SELECT id, sequence, type, step_id FROM workflow_transitions WHERE execution_id = {e:String} ORDER BY sequence"
    rows = product.rows(sql, e=execution)
    assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    assert len({row["id"] for row in rows}) == len(rows)
    assert [row["id"] for row in rows] == [transition["id"] for transition in shown["transitions"]]
    completed = [row["step_id"] for row in rows if row["type"] == "step.completed"]
    assert sorted(completed) == sorted(set(completed))
    assert set(completed) == {
        "context-setup", "role-assignment", "plan-creation", "execution-monitoring", "trace-execution", "dialog-facilitation",
    }  # fmt: skip
    started = [(row["type"], row["step_id"]) for row in rows]
    assert started.index(("step.started", "role-assignment")) > started.index(("step.completed", "context-setup"))
    view = product.rows("SELECT status, failed_steps FROM executions WHERE execution_id = {e:String}", e=execution)
    assert view == [{"status": "completed", "failed_steps": 0}]
    text = product.mplp("workflow", "show", execution).out
    assert "plan-creation" in text
    assert "completed" in text


def test_ten_thousand_events_are_accepted_whole(product: Product) -> None:
    answer = product.mplp("events", "produce", "--json", stdin=orders("bulk", 10_000, "bulk.made"))
    assert answer.code == 0, answer.err
    assert answer.json == {"accepted": 10_000, "rejected": []}
    rows = product.rows("SELECT count() AS n, uniqExact(id) AS ids FROM system_events WHERE type = 'bulk.made'")
    assert rows == [{"n": 10_000, "ids": 10_000}]


def test_three_failures_of_one_customer_are_one_composite_with_its_explanation(product: Product) -> None:
    assert product.mplp("rules", "apply", "examples/rules/orders-failing.yaml", "--json").code == 0
    of_ada = "rule_id == 'orders-failing' && group_key['data.customer'] == 'ada'"
    tail = product.start("composites", "tail", "--from", "beginning", "--filter", of_ada, "--count", "1", "--timeout", "2m", "--json")
    assert product.mplp("events", "produce", stdin=orders("ada", 3) + orders("grace", 2)).code == 0
    out, _ = tail.communicate(timeout=150)
    composites = [json.loads(line) for line in out.splitlines()]
    mine = [composite for composite in composites if composite["rule_id"] == "orders-failing"]
    assert len({composite["id"] for composite in mine}) == 1, mine
    composite = mine[-1]
    assert composite["group_key"] == {"data.customer": "ada"}
    assert composite["event_count"] == 3
    assert len(composite["event_ids"]) == 3
    assert "3" in composite["explanation"]
    rows = product.rows("SELECT count() AS n FROM composite_events WHERE rule_id = 'orders-failing'")
    assert rows == [{"n": len(mine)}]


def test_bad_lines_are_named_and_the_rest_is_kept(product: Product) -> None:
    lines = [
        '{"type": "ok.one", "data": {}}',
        '{"type": "broken"',
        '{"data": {}}',
        '{"type": "ok.two", "data": {}}',
        '{"type": "x.y", "data": {}, "surprise": 1}',
    ]
    answer = product.mplp("events", "produce", "--json", stdin="\n".join(lines) + "\n")
    assert answer.code == 1
    assert answer.json["accepted"] == 2
    assert [fault["line"] for fault in answer.json["rejected"]] == [2, 3, 5]
    assert all(fault["code"] and fault["message"] for fault in answer.json["rejected"])
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("name", "steps", "code", "pointer"),
    [
        (
            "operation",
            [{"id": "a", "type": "module-operation", "module": "plan", "operation": "nothing"}],
            "operation.unknown",
            "/steps/0/operation",
        ),
        (
            "cycle",
            [
                {"id": "a", "type": "module-operation", "module": "plan", "operation": "get-plan", "dependencies": ["b"]},
                {"id": "b", "type": "module-operation", "module": "plan", "operation": "get-plan", "dependencies": ["a"]},
            ],
            "dependency.cycle",
            "/steps",
        ),
        (
            "reference",
            [
                {
                    "id": "a",
                    "type": "module-operation",
                    "module": "plan",
                    "operation": "get-plan",
                    "parameters": {"planId": "${gone.result.planId}"},
                }
            ],
            "reference.unknown",
            "/steps/0/parameters/planId",
        ),
    ],
)
def test_wrong_definitions_are_refused_with_code_and_pointer(
    product: Product, tmp_path: Path, name: str, steps: list[object], code: str, pointer: str
) -> None:  # fmt: skip
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps({"id": name, "name": name, "steps": steps}))
    checked = product.mplp("workflow", "validate", str(file), "--json")
    assert checked.code == 1
    assert checked.json["valid"] is False
    assert [(fault["code"], fault["pointer"]) for fault in checked.json["faults"]] == [(code, pointer)]
    run = product.mplp("workflow", "run", str(file), "--json")
    assert run.code == 1
    assert "Traceback" not in run.err


@pytest.mark.parametrize(
    "sql", ["DROP TABLE system_events", "INSERT INTO system_events SELECT * FROM system_events", "SELECT * FROM file('/etc/passwd')"]
)
def test_sql_that_writes_or_reads_files_is_refused(product: Product, sql: str) -> None:
    answer = product.mplp("query", sql, "--json")
    assert answer.code == 1
    assert "sql." in answer.err
    assert "Traceback" not in answer.err


def test_a_killed_core_in_the_middle_of_200_workflows_loses_and_repeats_nothing(product: Product) -> None:
    core = next(process for process in product.run_info()["processes"] if process["name"].startswith("core"))
    executions = run_many(product, EXAMPLE, 200, at=60, then=lambda: os.kill(core["pid"], signal.SIGKILL))
    deadline = time.monotonic() + 300
    ids = ", ".join(f"'{execution}'" for execution in executions)
    while True:
        rows = product.rows(f"SELECT status, count() AS n FROM executions WHERE execution_id IN ({ids}) GROUP BY status")
        if rows == [{"status": "completed", "n": 200}]:
            break
        assert time.monotonic() < deadline, rows
        time.sleep(0.5)
    steps = product.rows(
        f"SELECT execution_id, step_id, count() AS n FROM workflow_transitions WHERE execution_id IN ({ids}) AND type = 'step.completed' "
        "GROUP BY execution_id, step_id HAVING n != 1"
    )
    assert steps == [], "each step completed once"
    gaps = product.rows(
        f"SELECT execution_id FROM workflow_transitions WHERE execution_id IN ({ids}) "
        "GROUP BY execution_id HAVING max(sequence) != count() OR uniqExact(sequence) != count()"
    )
    assert gaps == [], "sequences are gapless"
    created = product.rows("SELECT uniqExact(subject) AS n, count() AS c FROM module_messages WHERE type = 'context.created'")
    assert created[0]["n"] == created[0]["c"], "each step's effect happened once"


def test_sql_accounts_for_every_offset_of_the_topics(product: Product) -> None:
    ends = end_offsets(product)
    tables = (
        *("workflow_transitions", "module_messages", "system_events", "composite_events"),
        *("deliveries", "dead_letters", "workflow_commands", "log_records"),
    )
    each = " UNION ALL ".join(f"SELECT _topic AS topic, _partition AS partition, _offset AS offset FROM {table}" for table in tables)
    figures = "count() AS n, uniqExact(offset) AS u, max(offset) AS last"
    rows = product.rows(f"SELECT topic, partition, {figures} FROM ({each}) GROUP BY topic, partition")
    found = {(row["topic"], row["partition"]): row for row in rows}
    assert len(ends) >= 8 * 4
    for place, end in ends.items():
        if end == 0:
            assert place not in found
            continue
        row = found[place]
        assert row["u"] == row["n"] == row["last"] + 1, f"{place}: nothing twice, no gap"
        assert row["last"] + 1 >= end, f"{place}: everything that was there before the query"
