"""Applies the numbered SQL files, each once. Blocks; one process at a time.

`NNNN_name.pre.sql` only adds: the code of the version before goes on beside it, so it is applied before new code begins.
`NNNN_name.post.sql` tidies up behind the new code, or takes away what only the old code used: when no old process runs any more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from clickhouse_connect.driver.client import Client

from services.history.cluster import for_cluster
from services.history.made import make

#: A file without a phase is of the time before there were two, and comes before new code.
_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+(?:\.(pre|post))?\.sql$")
#: A statement that only makes anew what rows have that were there before: of no use where there are none, and each takes its time.
_FOR_ROWS = re.compile(r"\A(?:--[^\n]*\n|\s)*ALTER TABLE \w+\s+MATERIALIZE\b(?!.*\b(?:ADD|MODIFY|DROP)\b)", re.DOTALL)
Phase = Literal["pre", "post"]
_RECORDED = """CREATE TABLE IF NOT EXISTS migrations (version UInt32, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'))
ENGINE = MergeTree ORDER BY version"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file."""

    version: int
    name: str
    phase: Phase
    statements: tuple[str, ...]


def migrations() -> Sequence[Migration]:
    """The shipped migrations in order."""
    found = []
    for file in files("services.history.migrations").iterdir():
        if match := _NAME.match(file.name):
            phase: Phase = "post" if match[2] == "post" else "pre"
            found.append(Migration(version=int(match[1]), name=file.name, phase=phase, statements=statements_of(file.read_text())))
    return sorted(found, key=lambda migration: migration.version)


def statements_of(text: str) -> tuple[str, ...]:
    """The statements of a file: separated by a semicolon at the end of a line."""
    return tuple(statement.strip() for statement in re.split(r";[ \t]*(?:\n|$)", text) if statement.strip())


def migrate(client: Client, database: str, phases: Collection[Phase] = ("pre", "post"), *, cluster: str = "") -> list[str]:
    """Makes the database, applies what is missing of `phases`, and returns the names of what was applied. Every statement may be repeated.

    In the order of the numbers: a `post` that is left for later leaves no later `pre` behind it.
    """
    make(client, f"CREATE DATABASE IF NOT EXISTS {database}", cluster)
    client.database = database
    is_new = not client.query("SELECT count() FROM system.tables WHERE database = currentDatabase()").result_rows[0][0]
    make(client, _RECORDED, cluster)
    done = {int(row[0]) for row in client.query("SELECT version FROM migrations").result_rows}
    applied = []
    for migration in migrations():
        if migration.version in done or migration.phase not in phases:
            continue
        for statement in migration.statements:
            if is_new and _FOR_ROWS.match(statement):
                continue
            client.command(for_cluster(statement, cluster))
        client.insert("migrations", [[migration.version, migration.name]], column_names=["version", "name"])
        applied.append(migration.name)
    return applied


def pending(client: Client) -> list[str]:
    """Names of the migrations that are not applied, of both phases."""
    done = {int(row[0]) for row in client.query("SELECT version FROM migrations").result_rows}
    return [migration.name for migration in migrations() if migration.version not in done]
