"""Cursors: opaque texts that say where the next page of a list begins."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
from fastapi import Query

from streams.errors import InvalidInput

#: Entries of a page unless asked otherwise, and at most.
PAGE = 100
PAGE_MAX = 1000

Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Entries of a page.")]
Cursor = Annotated[str | None, Query(max_length=2000, description="`next` of the page before; none: the first page.")]


def encode(*values: str | int) -> str:
    """The cursor that carries `values`."""
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")


def decode(cursor: str, *kinds: type[str] | type[int]) -> list[Any]:
    """The values of a cursor, of the given kinds. Raises `InvalidInput` (`cursor.invalid`)."""
    try:
        values = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise invalid() from error
    if not isinstance(values, list) or [type(value) for value in values] != list(kinds):
        raise invalid()
    return values


def invalid() -> InvalidInput:
    """The refusal of a cursor that is none of ours."""
    return InvalidInput(
        "cursor.invalid", "This cursor is none that a list gave.", pointer="/cursor", advice="Begin again without a cursor."
    )


def page(items: Sequence[Mapping[str, Any]], next_cursor: str | None) -> dict[str, Any]:
    """A page of a list as it is answered: `items`, and `next` (null on the last page)."""
    return {"items": list(items), "next": next_cursor}
