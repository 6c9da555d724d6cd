"""Migrations: from every earlier version, with rows of that version, the schema and the answers end as on a new database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from services.history.engine import open_client
from services.history.migrate import migrate, migrations, pending
from services.history.tables import all_tables
from streams.settings import Settings

#: Rows as the first version wrote them: an execution with a failed step, what a module said, events, a composite, a delivery, and the rest.
ROWS = (
    """INSERT INTO workflow_transitions (id, type, source, subject, time, correlation_id, causation_id, data_text,
        execution_id, workflow_id,
        workflow_version, step_id, attempt, status, sequence, epoch, _topic, _partition, _offset, _timestamp)
    SELECT toString(number), ['execution.started', 'step.started', 'step.retried', 'execution.failed'][number % 4 + 1], 'o', e, t, e,
        if(number % 4 = 0, NULL, toString(number - 1)),
        ['{"input":{}}', '{"module":"plan","operation":"create-plan"}', '{"error":{"code":"timeout","message":"m"},"delay_ms":1}', '{}']
            [number % 4 + 1],
        e, 'w', '1', if(number % 4 IN (1, 2), 's', NULL), if(number % 4 IN (1, 2), 1, 0), ['running', 'running', 'running',
        'failed'][number % 4 + 1],
        number % 4 + 1, 1, 'mplp.workflow.transitions', 0, number, t
    FROM (SELECT number, concat('e', toString(intDiv(number, 4))) AS e, toDateTime64('2026-01-31 23:59:50', 6,
        'UTC') + number AS t FROM numbers(40))""",
    """INSERT INTO module_messages (id, type, source, subject, time, correlation_id, causation_id, data_text, kind,
        source_module, target_module,
        operation, execution_id, step_id, attempt, _topic, _partition, _offset, _timestamp)
    SELECT concat('m', toString(number)), 'plan.requested', 'o', 's', t, 'c', NULL, '{}', ['request',
        'response'][number % 2 + 1], 'o', 'plan',
        'create-plan', NULL, NULL, 0, 'mplp.module.requests', 0, number, t
    FROM (SELECT number, toDateTime64('2026-01-31 23:59:50', 6, 'UTC') + number AS t FROM numbers(20))""",
    """INSERT INTO system_events (id, type, source, subject, time, correlation_id, causation_id, data_text, severity, _topic,
        _partition, _offset,
        _timestamp)
    SELECT concat('v', toString(number)), 'order.paid', 'shop', concat('order-', toString(number % 3)), t, 'c', if(number = 0, NULL,
        concat('v', toString(number - 1))), '{"amount": 3.5}', 'info', 'mplp.system.events', 0, number, t
    FROM (SELECT number, toDateTime64('2026-01-31 23:59:50', 6, 'UTC') + number AS t FROM numbers(20))""",
    """INSERT INTO composite_events (id, type, source, subject, time, data_text, rule_id, group_key, event_ids, event_count,
        severity, _topic,
        _partition, _offset, _timestamp)
    SELECT 'k0', 'orders.many', 'r', 's', t, '{}', 'many', map('subject', 'order-1'), ['v1', 'v4', 'gone'], 3, 'error',
        'mplp.composite.events',
        0, 0, t FROM (SELECT toDateTime64('2026-02-01 00:00:20', 6, 'UTC') AS t)""",
    """INSERT INTO deliveries (id, type, source, subject, time, data_text, event_id, route_id, destination, attempt, status,
        error, latency_ms,
        _topic, _partition, _offset, _timestamp)
    SELECT concat('d', toString(number)), 'delivery.tried', 'r', 's', t, '{}', concat('v', toString(number)), 'billing', 'topic', 1,
        ['delivered', 'dead'][number % 2 + 1], if(number % 2 = 0, NULL, 'no answer'), number, 'mplp.deliveries', 0, number, t
    FROM (SELECT number, toDateTime64('2026-02-01 00:00:20', 6, 'UTC') AS t FROM numbers(4))""",
    """INSERT INTO workflow_commands (id, type, source, subject, time, data_text, execution_id, command, _topic, _partition,
        _offset, _timestamp)
    SELECT 'start', 'start.requested', 'cli', 'e0', t, '{}', 'e0', 'start', 'mplp.workflow.commands', 0, 0, t
    FROM (SELECT toDateTime64('2026-01-31 23:59:49', 6, 'UTC') AS t)""",
    """INSERT INTO dead_letters (id, subject, value, _topic, _partition, _offset, _timestamp)
    SELECT 'x', 's', 'bytes', 'mplp.system.events.dlq', 0, 0, toDateTime64('2026-02-01 00:00:20', 3, 'UTC')""",
    """INSERT INTO log_records (kind, _topic, _partition, _offset, _timestamp)
    SELECT 'fence', 'mplp.workflow.transitions', 0, 40, toDateTime64('2026-02-01 00:00:20', 3, 'UTC')""",
)
QUESTIONS = (
    "SELECT * FROM executions ORDER BY ALL",
    "SELECT * FROM steps ORDER BY ALL",
    "SELECT * FROM event_rates ORDER BY ALL",
    "SELECT * EXCEPT (data) FROM records ORDER BY ALL",
    "SELECT * FROM composites_with_events ORDER BY ALL",
    "SELECT * FROM module_latency ORDER BY ALL",
    "SELECT * FROM delivery_health ORDER BY ALL",
    "SELECT sum(records) FROM ingest_lag",
    "SELECT * FROM executions_at(at = '2026-02-01T00:00:05Z') ORDER BY ALL",
    "SELECT * FROM steps_at(at = '2026-02-01T00:00:05Z') ORDER BY ALL",
    "SELECT execution_id, error_code FROM workflow_transitions WHERE id = '2'",
    "SELECT * EXCEPT (data) FROM system_events WHERE causation_id IN ('v7', 'v8') ORDER BY ALL",
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = open_client(Settings(data_dir=tmp_path_factory.mktemp("schema")), database=None, session={})
    yield client
    client.close()


def filled(client: Client) -> None:
    for rows in ROWS:
        client.command(rows)


def at_version(client: Client, database: str, version: int) -> None:
    """A database as the code of that version left it, with rows."""
    client.command(f"CREATE DATABASE {database}")
    client.database = database
    client.command(
        "CREATE TABLE migrations (version UInt32, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')) "
        "ENGINE = MergeTree ORDER BY version"
    )
    for migration in migrations()[:version]:
        for statement in migration.statements:
            client.command(statement)
        client.insert("migrations", [[migration.version, migration.name]], column_names=["version", "name"])
    filled(client)


def schema(client: Client, database: str) -> list[Any]:
    """Everything that makes up a schema, without the name of the database."""
    found = []
    for what, source in (
        ("table, name, type, default_kind, default_expression, compression_codec, is_in_sorting_key, position", "columns"),
        ("table, name, type_full, expr, granularity", "data_skipping_indices"),
    ):
        found += client.query(f"SELECT {what} FROM system.{source} WHERE database = '{database}' ORDER BY ALL").result_rows
    tables = client.query(f"SELECT name, create_table_query FROM system.tables WHERE database = '{database}' ORDER BY name").result_rows
    return [*found, *((name, text.replace(f"{database}.", "")) for name, text in tables)]


def answers(client: Client) -> list[Any]:
    return [client.query(question).result_rows for question in QUESTIONS]


@pytest.fixture(scope="module")
def fresh(client: Client) -> tuple[list[Any], list[Any]]:
    """Schema and answers of a new database."""
    migrate(client, "fresh")
    filled(client)
    return schema(client, "fresh"), answers(client)


@pytest.mark.parametrize("version", range(1, len(migrations())))
def test_every_earlier_version_ends_in_the_same_schema_with_the_same_answers(
    client: Client, fresh: tuple[list[Any], list[Any]], version: int
) -> None:
    at_version(client, f"v{version}", version)
    assert migrate(client, f"v{version}") == [migration.name for migration in migrations()[version:]]
    assert pending(client) == []
    assert schema(client, f"v{version}") == fresh[0]
    assert answers(client) == fresh[1]


def test_what_the_answers_are(client: Client, fresh: tuple[list[Any], list[Any]]) -> None:
    by_question = dict(zip(QUESTIONS, fresh[1], strict=True))
    assert len(by_question["SELECT * FROM executions ORDER BY ALL"]) == 10
    assert by_question["SELECT sum(records) FROM ingest_lag"] == [(88,)]
    assert by_question[QUESTIONS[-2]] == [("e0", "timeout")]


def test_what_comes_before_new_code_leaves_the_rest_for_later(client: Client) -> None:
    applied = migrate(client, "rolling", ("pre",))
    assert applied == [migration.name for migration in migrations() if migration.phase == "pre"]
    filled(client)  # rows of the old code go in beside it
    before = answers(client)
    assert pending(client) == [migration.name for migration in migrations() if migration.phase == "post"]
    assert migrate(client, "rolling", ("post",)) == [migration.name for migration in migrations() if migration.phase == "post"]
    assert answers(client) == before


def test_a_row_says_when_it_came_in_and_what_was_there_before_when_kafka_took_it(client: Client, fresh: object) -> None:
    at_version(client, "lagging", 2)
    migrate(client, "lagging")
    lags = "SELECT count(), countIf(_inserted_at = _timestamp), countIf(_inserted_at > now() - INTERVAL 1 HOUR) FROM system_events"
    assert client.query(lags).result_rows == [(20, 20, 0)]
    client.command(ROWS[2])
    assert client.query(lags).result_rows == [(40, 20, 20)]


def test_every_table_of_the_code_is_there_with_its_columns(client: Client, fresh: object) -> None:
    for name, table in all_tables().items():
        rows = client.query(f"SELECT name FROM system.columns WHERE database = 'fresh' AND table = '{name}'").result_rows
        assert set(table.targets) <= {row[0] for row in rows}


def test_files_are_numbered_without_a_gap(tmp_path: Path) -> None:
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))
