"""Replicas of a cluster: each is behind the others at times. Blocks."""

from __future__ import annotations

from collections.abc import Iterable

from clickhouse_connect.driver.client import Client

from services.history.tables import all_tables
from streams.settings import Settings


def see_all(client: Client, settings: Settings, tables: Iterable[str] | None = None) -> None:
    """Returns when the replica that a connection leads to has every row that was acknowledged before, in some tables (or all).

    Whoever decides by what there is (what is missing, what is to be erased, what is copied) must see it. Raises `ClickHouseError`.
    """
    if settings.clickhouse_cluster:
        for table in all_tables() if tables is None else tables:
            client.command(f"SYSTEM SYNC REPLICA {settings.clickhouse_database}.{table} LIGHTWEIGHT")
