"""Whether schemas can stand in for each other, by Apache Avro's own checker (pure).

FULL_TRANSITIVE: a new schema reads everything that any earlier version wrote, and every earlier version reads what it writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException

from streams.errors import InvalidInput


def parse(text: str) -> Any:
    """The schema as Apache Avro parses it. Raises `InvalidInput` (`schema.invalid`)."""
    try:
        return avro.schema.parse(text)
    except (AvroException, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise InvalidInput("schema.invalid", f"This is no Avro schema: {error}") from error


def incompatibilities(reader: str, writer: str) -> list[str]:
    """Why `reader` cannot read what `writer` wrote; empty if it can. Both are schema texts."""
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(parse(reader), parse(writer))
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    return [f"{message} (at {location})" for message, location in zip(sorted(result.messages), sorted(result.locations), strict=False)] or [
        "incompatible"
    ]


def violations(new: str, versions: Iterable[str], compatibility: str) -> list[str]:
    """Why `new` may not follow `versions` (oldest first) under a compatibility by Confluent's name; empty if it may."""
    against = list(versions)
    if compatibility == "NONE" or not against:
        parse(new)
        return []
    if not compatibility.endswith("_TRANSITIVE"):
        against = against[-1:]
    found: list[str] = []
    for number, old in enumerate(against, start=1):
        if compatibility.startswith(("BACKWARD", "FULL")):
            found += [f"the new schema cannot read version {number}: {why}" for why in incompatibilities(new, old)]
        if compatibility.startswith(("FORWARD", "FULL")):
            found += [f"version {number} cannot read the new schema: {why}" for why in incompatibilities(old, new)]
    return found
