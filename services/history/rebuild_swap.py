"""The swap of a rebuild: a swap that was cut off is finished by whoever comes next.

`EXCHANGE TABLES` swaps two tables atomically, but several pairs one after the other. So what is to be swapped is noted first, by the
lasting identities of the tables; the next who opens the history sees from those which pairs are swapped already, and swaps the others.
"""

from __future__ import annotations

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.history import rebuild_sql as sql
from services.history.cluster import for_cluster
from services.history.engine import error_code

#: A swap that was noted so long ago was cut off, seconds: it takes some milliseconds.
STALE_S = 60
#: A rebuild that has written nothing for so long is over, seconds.
IDLE_S = 6 * 3600
#: ClickHouse's code for a table that is not there.
_UNKNOWN_TABLE = 60


def settle(client: Client, cluster: str, *, older_than_s: int = 0) -> list[str]:
    """Finishes a swap that was noted; returns the tables whose names were changed now. Blocks. Nothing noted: nothing done."""
    try:
        noted = {str(table): str(uuid) for table, uuid in client.query(sql.noted(seconds=older_than_s)).result_rows}
    except ClickHouseError as error:
        if error_code(error) == _UNKNOWN_TABLE:
            return []
        raise
    if not noted:
        return []
    now = {str(name): str(uuid) for name, uuid in client.query(sql.uuids(list(noted))).result_rows}
    swapped = [table for table, uuid in sorted(noted.items()) if now.get(table) != uuid]
    for table in swapped:
        client.command(for_cluster(sql.exchange(table), cluster))
    client.command(for_cluster(sql.drop(sql.JOURNAL), cluster))
    return swapped


def tidy(client: Client, cluster: str, *, idle_s: int = 0) -> bool:
    """Drops what a rebuild left that was cut off; whether nothing is left now. Blocks.

    `idle_s`: only if nothing was written into it for so long; 0 only where nobody else can be rebuilding.
    """
    left = [str(name) for (name,) in client.query(sql.leftovers()).result_rows]
    if not left or (idle_s and int(client.query(sql.written_within(idle_s)).result_rows[0][0])):
        return not left
    for name in left:
        client.command(for_cluster(sql.drop(name), cluster))
    return True
