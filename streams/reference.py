"""Writes `docs/reference/topics.md`, `records.md` and `example-rules.md` from code and examples: `python -m streams.reference`.

A test compares the files with what this module would write, so they are never out of date.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from streams.codec.avro import local_schemas, to_json
from streams.codec.subjects import subject_of
from streams.records import RECORDS
from streams.reference_rules import rules_page
from streams.testing.controls import FULL
from streams.topics import BY_NAME, CATALOGUE, DAY_MS, FOREVER, SCHEMAS, Topic, TopicNames

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
_NOTICE = "<!-- Written by `python -m streams.reference`; edit the code instead. -->"
#: How many fields all records have in common, at their beginning.
COMMON_FIELDS = 9


def table(headers: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _cleanup(topic: Topic) -> str:
    if topic.cleanup == "compact":
        return "compact"
    return "delete, kept for ever" if topic.retention_ms == FOREVER else f"delete, {topic.retention_ms // DAY_MS} d"


def _topic_row(topic: Topic) -> list[str]:
    notes = [
        note
        for holds, note in (
            (topic.log, "log: [the reader's rule](../concepts/log-kernel.md) applies"),
            (topic.log_append_time, "LogAppendTime"),
            (topic.sunk, "in the history"),
        )
        if holds
    ]
    records = ", ".join(f"[`{record.__name__}`](records.md#{record.__name__.lower()})" for record in topic.records) or "original bytes"
    return [
        f"`{topic.name}`",
        topic.key,
        records,
        "1" if topic.single_partition else "`MPLP_PARTITIONS`",
        _cleanup(topic),
        f"{topic.message_bytes_max // 2**20} MiB",
        "; ".join(notes),
    ]


def topics_page() -> str:
    """The page about topics."""
    names = TopicNames()
    subjects = [
        [f"`{topic.name}`", ", ".join(f"`{subject_of(topic, record, names)}`" for record in topic.records)]
        for topic in CATALOGUE
        if topic.records
    ]
    return f"""{_NOTICE}

# Topics

Keys are partitioned by murmur2, Kafka's default. The first part of every name, `mplp`, is the prefix (`MPLP_TOPIC_PREFIX`); topics of
your own keep their names. The partition count is fixed when a topic is created: all topics but the control topics have the same, so that
what belongs together lies in the same partition everywhere.

`mplp topics apply` creates what is missing, raises settings that are smaller than here (a retention, a message size), keeps what an
operator made larger, sets the cleanup and the kind of timestamps, and reports partitions and replicas that differ, with exit code 1.

{table(["topic", "key", "records", "partitions", "cleanup", "largest message", ""], [_topic_row(topic) for topic in CATALOGUE])}

Besides: `mplp.module.requests.<module>`, the inbox of a module that runs in a process of its own, and `<topic>.retry` and `<topic>.dlq`
of a topic that is routed or handled, with the original key and bytes.

## Schemas

Values are Avro in Confluent's wire format: a zero byte, the schema id in 4 bytes (big endian), the body. Schemas lie in the compacted
topic `{SCHEMAS}` (`MPLP_SCHEMAS_TOPIC` names another one; not prefixed, one partition, Confluent's own record layout), compatibility
`FULL_TRANSITIVE`; the gateway serves
them over Confluent's REST calls at its root (`/subjects`, `/schemas/ids/{{id}}`, `/compatibility/…`, `/config`). With
`MPLP_SCHEMA_REGISTRY_URL` another Confluent-compatible registry is used instead. Programs that write `{SCHEMAS}` themselves must hold the
transactional id `_schemas-writer` while they do; a registry of Confluent's does not, so when one serves the topic, set its URL.

The subject is `<topic>-value` on a topic with one record type, else the record's full name:

{table(["topic", "subjects"], subjects)}
"""


def type_text(schema: Any) -> str:
    """An Avro type in words."""
    if isinstance(schema, list):
        return f"{type_text(schema[1])}, nullable"
    if isinstance(schema, str):
        return schema
    if "logicalType" in schema:
        return str(schema["logicalType"])
    match schema["type"]:
        case "enum":
            return "enum: " + ", ".join(f"`{symbol}`" for symbol in schema["symbols"])
        case "array":
            return f"array of {type_text(schema['items'])}"
        case "map":
            return f"map of {type_text(schema['values'])}"
        case "record":
            return "record (" + ", ".join(f"`{field['name']}`: {type_text(field['type'])}" for field in schema["fields"]) + ")"
    return str(schema["type"])


def _field_rows(fields: list[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            f"`{field['name']}`",
            type_text(field["type"]),
            f"`{orjson.dumps(field['default']).decode()}`" if "default" in field else "",
            field["doc"],
        ]
        for field in fields
    ]


def _record_section(name: str) -> str:
    schema = local_schemas()[name]
    where = ", ".join(f"`{topic.name}`" for topic in BY_NAME.values() if RECORDS[name] in topic.records)
    example = orjson.dumps(to_json(dataclasses.replace(FULL[name], data={"total": 12.5})), option=orjson.OPT_INDENT_2).decode()
    return f"""## {name}

{schema["doc"]} On {where}.

{table(["field", "type", "default", "meaning"], _field_rows(schema["fields"][COMMON_FIELDS:]))}

```json
{example}
```
"""


def records_page() -> str:
    """The page about records."""
    common = local_schemas()["SystemEvent"]["fields"][:COMMON_FIELDS]
    sections = "\n".join(_record_section(name) for name in RECORDS)
    return f"""{_NOTICE}

# Records

Every record is Avro; the schemas are `schemas/avro/<Record>.avsc`, the Python classes `streams.records.<Record>`. Below, JSON is what
`--json`, HTTP and the live streams show: times as RFC 3339 text, `data` parsed. On the wire times are microseconds since the epoch and
`data` is JSON text. NaN, infinities and whole numbers beyond 64 bits are no JSON and are refused (`record.invalid`); a payload has at
most 1 MiB (`payload.too-large`) and 100 levels (`payload.too-deep`). Reading, a whole number beyond 64 bits becomes the nearest float.

Every record carries [CloudEvents 1.0](https://cloudevents.io) headers in binary mode: `ce_specversion`, `ce_id`, `ce_type`, `ce_source`,
`ce_time`, and `ce_subject` unless it is empty; records of a log also `mplp_epoch`.

All begin with:

{table(["field", "type", "default", "meaning"], _field_rows(common))}

{sections}"""


def pages() -> dict[str, str]:
    """File name → content of every page that is written from the code."""
    return {"topics.md": topics_page(), "records.md": records_page(), "example-rules.md": f"{_NOTICE}\n\n{rules_page()}"}


def main(folder: Path = REFERENCE) -> None:
    """Writes the pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in pages().items():
        (folder / name).write_text(content)


if __name__ == "__main__":
    main()
