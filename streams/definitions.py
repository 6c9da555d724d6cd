"""A workflow document as far as everyone must know it: its wrapper, the hash that pins its content, its keys as published. Pure."""

from __future__ import annotations

import hashlib

import orjson

from streams.records import Json

#: What stands between a workflow's id and one of its versions in a key of the control topic.
VERSION_MARK = "@version:"


def unwrap(document: Json) -> tuple[Json, tuple[str, ...]]:
    """The workflow in a document, and the path that leads to it: `workflow` if it is wrapped."""
    if isinstance(document, dict) and "workflow" in document and "steps" not in document:
        return document["workflow"], ("workflow",)
    return document, ()


def definition_hash(document: Json) -> str:
    """SHA-256 of the workflow's content (without the wrapper) as JSON with sorted keys, 64 hexadecimal digits."""
    workflow, _ = unwrap(document)
    return hashlib.sha256(orjson.dumps(workflow, option=orjson.OPT_SORT_KEYS)).hexdigest()
