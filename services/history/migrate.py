"""Applies the numbered SQL files, each once. Blocks; one process at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from clickhouse_connect.driver.client import Client

from services.history.cluster import for_cluster

_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_RECORDED = """CREATE TABLE IF NOT EXISTS migrations (version UInt32, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'))
ENGINE = MergeTree ORDER BY version"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file."""

    version: int
    name: str
    statements: tuple[str, ...]


def migrations() -> Sequence[Migration]:
    """The shipped migrations in order."""
    found = []
    for file in files("services.history.migrations").iterdir():
        if match := _NAME.match(file.name):
            found.append(Migration(version=int(match[1]), name=file.name, statements=statements_of(file.read_text())))
    return sorted(found, key=lambda migration: migration.version)


def statements_of(text: str) -> tuple[str, ...]:
    """The statements of a file: separated by a semicolon at the end of a line."""
    return tuple(statement.strip() for statement in re.split(r";[ \t]*(?:\n|$)", text) if statement.strip())


def migrate(client: Client, database: str, *, cluster: str = "") -> list[str]:
    """Makes the database, applies what is missing, and returns the names of what was applied. Every statement may be repeated."""
    client.command(for_cluster(f"CREATE DATABASE IF NOT EXISTS {database}", cluster))
    client.database = database
    client.command(for_cluster(_RECORDED, cluster))
    done = {int(row[0]) for row in client.query("SELECT version FROM migrations").result_rows}
    applied = []
    for migration in migrations():
        if migration.version in done:
            continue
        for statement in migration.statements:
            client.command(for_cluster(statement, cluster))
        client.insert("migrations", [[migration.version, migration.name]], column_names=["version", "name"])
        applied.append(migration.name)
    return applied
