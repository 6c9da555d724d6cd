"""Statements of one server as a replicated cluster needs them."""

from __future__ import annotations

import pytest

from services.history.cluster import WINDOW_S, for_cluster
from services.history.migrate import migrations


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("CREATE DATABASE IF NOT EXISTS mplp", "CREATE DATABASE IF NOT EXISTS mplp ON CLUSTER 'c'"),
        ("-- why\nCREATE OR REPLACE VIEW v AS\nSELECT 1", "-- why\nCREATE OR REPLACE VIEW v ON CLUSTER 'c' AS\nSELECT 1"),
        (
            "CREATE TABLE IF NOT EXISTS t (n UInt8) ENGINE = MergeTree ORDER BY n",
            "CREATE TABLE IF NOT EXISTS t ON CLUSTER 'c' (n UInt8) ENGINE = ReplicatedMergeTree ORDER BY n",
        ),
        (
            "CREATE MATERIALIZED VIEW m (n UInt8) ENGINE = SummingMergeTree(n) ORDER BY n AS SELECT 1",
            "CREATE MATERIALIZED VIEW m ON CLUSTER 'c' (n UInt8) ENGINE = ReplicatedSummingMergeTree(n) ORDER BY n AS SELECT 1",
        ),
        (
            "alter table mplp.t MODIFY SETTING non_replicated_deduplication_window = 5",
            "alter table mplp.t ON CLUSTER 'c' MODIFY SETTING replicated_deduplication_window = 5, "
            f"replicated_deduplication_window_seconds = {WINDOW_S}",
        ),
        ("EXCHANGE TABLES a AND b", "EXCHANGE TABLES a AND b ON CLUSTER 'c'"),
        ("DROP TABLE IF EXISTS t SYNC", "DROP TABLE IF EXISTS t ON CLUSTER 'c' SYNC"),
    ],
)
def test_what_changes_the_schema_is_done_on_the_cluster(statement: str, expected: str) -> None:
    assert for_cluster(statement, "c") == expected
    assert for_cluster(statement, "") == statement


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "INSERT INTO t SELECT 'ENGINE = MergeTree'",
        "CREATE TABLE t ON CLUSTER 'other' (n UInt8) ENGINE = ReplicatedMergeTree ORDER BY n",
        "SYSTEM SYNC REPLICA t",
    ],
)
def test_nothing_else_is_touched(statement: str) -> None:
    assert for_cluster(statement, "c") == statement


def test_every_migration_is_one_of_a_cluster() -> None:
    statements = [statement for migration in migrations() for statement in migration.statements]
    for statement in statements:
        changed = for_cluster(statement, "c")
        assert "ON CLUSTER 'c'" in changed or statement.lstrip().upper().startswith(("INSERT", "SYSTEM")), statement
        assert " = MergeTree" not in changed
