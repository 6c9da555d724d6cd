"""A day's file, looked into on the machine where it was written: what it really holds. Blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.history.engine import open_parser
from services.history.export import PLACES_DIGEST
from services.history.insert import quoted
from streams.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a file holds."""

    rows: int
    places: int  #: as of `export.Day`


def held(file: Path, engine: Client | None = None) -> Held:
    """Rows of a Parquet file and where they are from. Raises `Refused` (`export.unreadable`) if it is none, or was cut off.

    `engine`: that reads it, where a process has one; else one in memory.
    """
    client = engine or open_parser()
    try:
        ((rows, places),) = client.query(f"SELECT count(), {PLACES_DIGEST} FROM file({quoted(str(file))}, Parquet)").result_rows
    except ClickHouseError as error:
        raise Refused("export.unreadable", f"{file.name} is no whole Parquet file: {str(error)[:200]}") from error
    finally:
        if engine is None:
            client.close()
    return Held(rows=int(rows), places=int(places))
