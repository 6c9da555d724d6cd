"""Lifetimes of the tables: what they are, and what they become."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.history import retention
from services.history.cluster import UNHURRIED, for_cluster
from services.history.engine import is_unavailable, unavailable
from services.history.retention import Retained
from services.history.store import History
from services.history.tables import all_tables
from streams.errors import Defect
from streams.records import now

#: Rows whose lifetime ends so soon are not compared any more, milliseconds: they may be dropped meanwhile.
MARGIN_MS = 24 * 3600 * 1000

_OLDEST = """
SELECT execution_id, min(time) AS began FROM workflow_transitions WHERE sequence > 0 AND type != 'command.refused'
GROUP BY execution_id HAVING argMax(status, sequence) NOT IN ('completed', 'failed', 'cancelled', 'timed_out')
ORDER BY began LIMIT 1 SETTINGS max_execution_time = 0
"""


def read(client: Client) -> dict[str, int]:
    """The lifetimes that the tables have, milliseconds. Blocks."""
    return retention.lifetimes(tuple(row) for row in client.query(retention.definitions()).result_rows)


def apply(client: Client, lifetimes_ms: Mapping[str, int], cluster: str) -> list[str]:
    """Gives the tables these lifetimes, all others none; the tables whose lifetime was another. Blocks. Repeated it changes nothing."""
    before = read(client)
    changed = [table for table in all_tables() if before.get(table) != lifetimes_ms.get(table)]
    for table in changed:
        for statement in retention.statements(table, lifetimes_ms.get(table)):
            client.command(for_cluster(statement, cluster), settings=dict(UNHURRIED) if cluster else None)
    return changed


async def retained(history: History, *, margin_ms: int = MARGIN_MS) -> Retained:
    """What the tables have to have now. Raises `Unavailable`."""
    connections = history.connections("history-lifetimes", size=1)
    try:
        return retention.retained(await connections.run(read), now(), margin_ms=margin_ms)
    except ClickHouseError as error:
        raise unavailable(error) if is_unavailable(error) else Defect("history.retention", str(error)[:300]) from error
    finally:
        await connections.close()


def oldest_execution(client: Client) -> tuple[str, datetime] | None:
    """The execution that has been under way for longest, and when it began. Blocks."""
    rows = client.query(_OLDEST).result_rows
    if not rows:
        return None
    execution_id, began = rows[0]
    return str(execution_id), began.replace(tzinfo=UTC) if began.tzinfo is None else began
