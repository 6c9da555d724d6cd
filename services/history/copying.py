"""Rows from one table into another of the same shape, in SQL: what a row consists of, and when it was first inserted. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from services.history.verify_sums import Range

#: When a row was inserted is MATERIALIZED, so that nobody sets it by accident; a copy says it on purpose.
ALLOW_TIMES = "insert_allow_materialized_columns = 1"
INSERTED_AT = "_inserted_at"
_NEVER = "toDateTime64(0, 3, 'UTC')"


def columns_of(table: str) -> str:
    """The names of a table's columns that are copied: those that follow from others are not."""
    return (
        f"SELECT name FROM system.columns WHERE database = currentDatabase() AND table = '{table}' "
        f"AND (default_kind IN ('', 'DEFAULT') OR name = '{INSERTED_AT}') ORDER BY position"
    )


def listed(columns: Sequence[str]) -> str:
    """Names of columns as SQL."""
    return ", ".join(f"`{column}`" for column in columns)


def inserted_before(table: str, condition: str, of: Range) -> str:
    """When rows of a table were inserted, as an array: the first element is that of the first offset of the range."""
    index = f"toUInt32(_offset - {of.first})"
    return f"(SELECT groupArrayInsertAt({_NEVER})({INSERTED_AT}, {index}) FROM {table} WHERE {condition})"


def inserted_at(known: str, offset: str, first: int) -> str:
    """When the row of an offset was inserted, by such an array (its name); now, if it was not."""
    found = f"{known}[{offset} - {first} + 1]"
    return f"if({found} = {_NEVER}, now64(3, 'UTC'), {found})"
