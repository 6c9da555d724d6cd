"""Statements of one server as those of a replicated cluster: `ON CLUSTER`, Replicated engines, windows that all replicas share. Pure.

What goes through Keeper by itself (`ALTER TABLE … UPDATE | DELETE | MODIFY TTL` of a Replicated table) is not sent to the cluster: that
would wait for servers that are down, and these do it from Keeper when they are back. Settings of a table, and what starts, stops
or ends work, are each replica's own: those are.

Migrations, and whatever else changes the schema, are written for one server and go through `for_cluster`. The engines take their paths
from the server's own settings (`default_replica_path`, `default_replica_name`), which by ClickHouse's defaults are unique per table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: How long a replicated table remembers the tokens of its inserts (seconds): as long as blocks are kept in the log.
WINDOW_S = 7 * 24 * 3600
#: Settings of a statement for the cluster that no server need wait for: one that is down does it when it is back.
UNHURRIED: Mapping[str, Any] = {"distributed_ddl_task_timeout": 30, "distributed_ddl_output_mode": "null_status_on_timeout"}

_NAME = r"(?:[\w`\".{}:]+)"
_HEADS = (
    rf"CREATE\s+DATABASE\s+(?:IF\s+NOT\s+EXISTS\s+)?{_NAME}",
    rf"CREATE\s+(?:OR\s+REPLACE\s+)?(?:MATERIALIZED\s+VIEW|VIEW|TABLE|DICTIONARY|FUNCTION)\s+(?:IF\s+NOT\s+EXISTS\s+)?{_NAME}",
    rf"ALTER\s+TABLE\s+{_NAME}",
    rf"DROP\s+(?:DATABASE|TABLE|VIEW|DICTIONARY|FUNCTION)\s+(?:IF\s+EXISTS\s+)?{_NAME}",
    rf"TRUNCATE\s+(?:TABLE\s+)?(?:IF\s+EXISTS\s+)?{_NAME}",
    rf"OPTIMIZE\s+TABLE\s+{_NAME}",
    r"SYSTEM\s+(?:STOP|START)\s+TTL\s+MERGES",
    r"KILL\s+MUTATION",
    rf"(?:RENAME\s+TABLE\s+{_NAME}\s+TO\s+{_NAME}|EXCHANGE\s+TABLES\s+{_NAME}\s+AND\s+{_NAME})",
)
_BY_KEEPER = re.compile(rf"\s*ALTER\s+TABLE\s+{_NAME}\s+(?:UPDATE|DELETE|MODIFY\s+TTL|REMOVE\s+TTL)\b", re.IGNORECASE)
_HEAD = re.compile(
    r"\A(?P<lead>(?:\s|--[^\n]*\n|/\*.*?\*/)*)(?P<head>" + "|".join(_HEADS) + r")(?!\s+ON\s+CLUSTER)", re.IGNORECASE | re.DOTALL
)
_ENGINE = re.compile(r"\bENGINE\s*=\s*(?!Replicated)(\w*MergeTree)\b", re.IGNORECASE)
_WINDOW = re.compile(r"\bnon_replicated_deduplication_window\s*=\s*(\d+)", re.IGNORECASE)


def for_cluster(statement: str, cluster: str) -> str:
    """The statement as a cluster needs it; unchanged if `cluster` is empty, or if it changes no schema."""
    found = _HEAD.match(statement) if cluster and not _BY_KEEPER.match(statement) else None
    if found is None:
        return statement
    head, rest = statement[: found.end()], statement[found.end() :]
    if found["head"].split()[0].upper() in ("CREATE", "ALTER"):
        rest = _ENGINE.sub(r"ENGINE = Replicated\1", rest)
        rest = _WINDOW.sub(rf"replicated_deduplication_window = \1, replicated_deduplication_window_seconds = {WINDOW_S}", rest)
    return f"{head} ON CLUSTER '{cluster}'{rest}"
