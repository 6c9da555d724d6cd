"""Databases and tables that are made where they are missing. Blocks."""

from __future__ import annotations

import re

from clickhouse_connect.driver.client import Client

from services.history.cluster import UNHURRIED, for_cluster

_WHAT = re.compile(r"CREATE\s+(DATABASE|TABLE)\s+IF\s+NOT\s+EXISTS\s+(\w+)")


def make(client: Client, statement: str, cluster: str) -> None:
    """Runs a `CREATE … IF NOT EXISTS`, on a cluster only if it is needed: that waits for all of its servers, and one may be down."""
    found = _WHAT.match(statement)
    if cluster and found is not None and int(str(client.command(f"EXISTS {found[1]} {found[2]}"))):
        return
    client.command(for_cluster(statement, cluster), settings=dict(UNHURRIED) if cluster else None)
