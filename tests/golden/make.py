"""Writes the golden files of a version that does not exist yet: `python tests/golden/make.py v2`. What exists is never written again."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson

from streams.codec.avro import Codec, SchemaIds, local_schemas, to_json
from streams.testing.controls import FULL, LEAST

GOLDEN = Path(__file__).parent


def make(version: str) -> None:
    schemas, records = GOLDEN / "schemas" / version, GOLDEN / "records" / version
    schemas.mkdir(parents=True)
    records.mkdir(parents=True)
    codec = Codec(SchemaIds.local())
    for name, schema in local_schemas().items():
        (schemas / f"{name}.avsc").write_bytes(orjson.dumps(schema, option=orjson.OPT_INDENT_2) + b"\n")
        examples = [FULL[name], LEAST[name]]
        (records / f"{name}.hex").write_text("".join(f"{codec.encode(record)[5:].hex()}\n" for record in examples))
        (records / f"{name}.jsonl").write_bytes(b"".join(orjson.dumps(to_json(record)) + b"\n" for record in examples))


if __name__ == "__main__":
    make(sys.argv[1])
