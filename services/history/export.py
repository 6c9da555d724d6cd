"""The rows of a table by day, as Parquet: what there is of each day, and the day itself, bit by bit.

A day is one of Kafka's timestamps (`_timestamp`, UTC). Of every day the rows, and sums of digests that do not depend on their order, say
whether a file that was written before still has what the table has: rows that came late, or an erasure, change them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from services.history import verify_sql
from services.history.answers import Format
from services.history.engine import is_unavailable, unavailable
from services.history.queries import Answer
from services.history.query import QueryLimits
from services.history.store import History
from services.history.tables import PLACE_COLUMNS, Table, all_tables
from streams.errors import Defect, NotFound

#: Of the digest of places, in a table and in a file.
PLACES_DIGEST = "sum(cityHash64(toString(_topic), toInt64(_partition), toInt64(_offset)))"
#: A whole day may be large, and takes the time that it takes.
_UNLIMITED = 2**62
_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Offsets:
    """What a day has of one partition."""

    topic: str
    partition: int
    first: int
    last: int
    rows: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"topic": self.topic, "partition": self.partition, "first": self.first, "last": self.last, "rows": self.rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What a table has of one day."""

    day: date
    rows: int
    places: int  #: sum of the digests of where the rows lie, modulo 2⁶⁴
    digest: int  #: sum of the rows' digests, modulo 2⁶⁴
    offsets: tuple[Offsets, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON; sums as text, since they are beyond what JSON's readers keep exact."""
        return {
            "day": self.day.isoformat(), "rows": self.rows, "places": str(self.places), "digest": str(self.digest),
            "offsets": [each.to_dict() for each in self.offsets],
        }  # fmt: skip


def table_of(name: str) -> Table:
    """A table by its name. Raises `NotFound` (`table.unknown`)."""
    found = all_tables().get(name)
    if found is None:
        raise NotFound("table.unknown", f"There is no table {name}.", advice=f"There are: {', '.join(all_tables())}.")
    return found


async def days_of(history: History, table: str, since: date | None, until: date | None) -> list[Day]:
    """What a table has of the days from `since` on, before `until`. Raises `NotFound` (`table.unknown`), `Unavailable`."""
    table_of(table)
    conditions = [
        f"_timestamp {sign} toDateTime64('{bound.isoformat()} 00:00:00', 3, 'UTC')"
        for sign, bound in ((">=", since), ("<", until))
        if bound is not None
    ]
    sums = f"{PLACES_DIGEST}, sum({verify_sql.digest(table)})"
    query = (
        f"SELECT toDate(_timestamp, 'UTC') AS day, _topic, _partition, min(_offset), max(_offset), count(), {sums} FROM {table} "
        f"WHERE {' AND '.join(conditions) or '1'} GROUP BY day, _topic, _partition ORDER BY day, _topic, _partition {verify_sql.SETTINGS}"
    )
    connections = history.connections("history-export", size=1)
    try:
        rows = await connections.run(lambda client: client.query(query).result_rows)
    except ClickHouseError as error:
        raise unavailable(error) if is_unavailable(error) else Defect("history.export", str(error)[:500]) from error
    finally:
        await connections.close()
    return _days(rows)


def _days(rows: Sequence[Sequence[Any]]) -> list[Day]:
    by_day: dict[date, list[Sequence[Any]]] = {}
    for row in rows:
        by_day.setdefault(row[0], []).append(row[1:])
    return [
        Day(
            day=day,
            rows=sum(int(row[4]) for row in some),
            places=sum(int(row[5]) for row in some) % 2**64,
            digest=sum(int(row[6]) for row in some) % 2**64,
            offsets=tuple(
                Offsets(topic=str(row[0]), partition=int(row[1]), first=int(row[2]), last=int(row[3]), rows=int(row[4])) for row in some
            ),
        )
        for day, some in by_day.items()
    ]


async def day_as_parquet(history: History, table: str, day: date) -> Answer:
    """The rows of a day, in no order; it has to be closed. `data` is the payload's text. Raises `NotFound` (`table.unknown`)."""
    columns = ["data_text AS data" if name == "data_text" else name for name in table_of(table).targets]
    named = ", ".join((*columns, *PLACE_COLUMNS))
    sql = f"SELECT {named} FROM {table} WHERE _timestamp >= {{since:String}} AND _timestamp < {{until:String}}"
    begins = datetime.combine(day, time.min, UTC)
    bounds: Mapping[str, Any] = {
        "since": f"{begins:%Y-%m-%d} 00:00:00", "until": f"{begins + timedelta(days=1):%Y-%m-%d} 00:00:00",
    }  # fmt: skip
    limits = QueryLimits(
        seconds=_SECONDS, rows=_UNLIMITED, result_bytes=_UNLIMITED, memory_bytes=history.settings.query_memory_bytes, rows_read=_UNLIMITED
    )
    return await history.stream(sql, bounds, format=Format.PARQUET, limits=limits)
