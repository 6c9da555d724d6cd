"""The tables and the Avro schemas of what is inserted into them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from services.history.container import Column, columns_of
from streams.codec.avro import local_schemas

DEAD_LETTERS = "dead_letters"
LOG_RECORDS = "log_records"

#: Table of each record.
TABLES: Mapping[str, str] = {
    "WorkflowTransition": "workflow_transitions",
    "ModuleMessage": "module_messages",
    "SystemEvent": "system_events",
    "CompositeEvent": "composite_events",
    "Delivery": "deliveries",
    "WorkflowCommand": "workflow_commands",
}
VIEWS = (
    "executions", "steps", "event_rates", "records", "composites_with_events", "module_latency", "delivery_health", "ingest_lag",
)  # fmt: skip
#: Views with parameters, called like functions: `FROM name(parameter = value)`.
PARAMETERISED_VIEWS: tuple[str, ...] = ("causes", "executions_at", "steps_at")

#: Columns that every row has: where it came from.
PLACE_COLUMNS = ("_topic", "_partition", "_offset", "_timestamp")


def _optional(kind: str) -> list[str]:
    return ["null", kind]


_HEADERS = {
    "type": "array",
    "items": {
        "type": "record",
        "name": "Header",
        "fields": [{"name": "name", "type": "string"}, {"name": "value", "type": "bytes"}],
    },
}

_DEAD_LETTER = {
    "type": "record",
    "name": "DeadLetter",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "type", "type": "string"},
        {"name": "source", "type": "string"},
        {"name": "subject", "type": "string"},
        {"name": "key", "type": _optional("bytes")},
        {"name": "value", "type": _optional("bytes")},
        {"name": "headers", "type": _HEADERS},
        {"name": "error_topic", "type": "string"},
        {"name": "error_partition", "type": _optional("int")},
        {"name": "error_offset", "type": _optional("long")},
        {"name": "exception", "type": "string"},
        {"name": "message", "type": "string"},
        {"name": "stacktrace", "type": "string"},
        {"name": "stage", "type": "string"},
        {"name": "route", "type": "string"},
        {"name": "attempts", "type": _optional("int")},
        {"name": "first_time", "type": "string"},
    ],
}

_LOG_RECORD = {
    "type": "record",
    "name": "LogRecord",
    "fields": [
        {"name": "kind", "type": "string"},
        {"name": "epoch", "type": _optional("int")},
        {"name": "id", "type": "string"},
        {"name": "type", "type": "string"},
        {"name": "key", "type": _optional("bytes")},
        {"name": "value", "type": _optional("bytes")},
        {"name": "headers", "type": _HEADERS},
        {"name": "error_code", "type": "string"},
        {"name": "error", "type": "string"},
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table and how rows come into it."""

    name: str
    schema: Mapping[str, Any]  #: Avro schema of the bodies
    columns: tuple[Column, ...]  #: the schema's fields, as ClickHouse types

    @property
    def targets(self) -> tuple[str, ...]:
        """Columns that an insert fills, in the order of the schema; the payload's text fills `data_text`, and `data` follows from it."""
        return tuple("data_text" if column.name == "data" else column.name for column in self.columns)


@cache
def all_tables() -> Mapping[str, Table]:
    """Every table by name."""
    schemas = {table: local_schemas()[record] for record, table in TABLES.items()}
    schemas |= {DEAD_LETTERS: _DEAD_LETTER, LOG_RECORDS: _LOG_RECORD}
    return {name: Table(name=name, schema=schema, columns=columns_of(schema)) for name, schema in schemas.items()}


def readable() -> tuple[str, ...]:
    """What a query may name; `PARAMETERISED_VIEWS` come with arguments."""
    return (*all_tables(), *VIEWS)
