"""Bodies that are documents people write, rules or definitions: JSON, one or an array of them, or YAML with `---` between several."""

from __future__ import annotations

from typing import Any

import yaml
from fastapi import Request

from services.gateway import bodies
from streams import limits
from streams.documents import read_yaml
from streams.errors import InvalidInput
from streams.records import Json

#: Bytes of a YAML body: its parser is slow.
YAML_BYTES_MAX = 256 * 1024


def described(what: str) -> dict[str, Any]:
    """The body, for OpenAPI. `what` a document is: "rule"."""
    return {
        bodies.JSON_TYPE: {"oneOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]},
        "application/yaml": {"type": "string", "description": f"One {what} a document."},
    }


async def read(request: Request, what: str) -> list[Json]:
    """The documents of a body, each an object. Raises `InvalidInput` (`yaml.invalid`, `body.invalid`, …)."""
    if bodies.content_type(request) in bodies.YAML_TYPES:
        documents = parse_yaml(await bodies.read(request))
    else:
        given = await bodies.json_of(request)
        documents = given if isinstance(given, list) else [given]
    if not documents or any(not isinstance(document, dict) for document in documents):
        raise InvalidInput("body.invalid", f"The body is a {what} or an array of them; a {what} is an object.", pointer="")
    return documents


def parse_yaml(body: bytes) -> list[Json]:
    """The documents of a YAML body, without aliases. Raises `InvalidInput`: `yaml.too-large`, `yaml.invalid`, `json.too-deep`."""
    if len(body) > YAML_BYTES_MAX:
        raise InvalidInput("yaml.too-large", f"A YAML body has at most {YAML_BYTES_MAX} bytes.", advice="Send JSON, or fewer documents.")
    try:
        documents = [document for document in read_yaml(body, code="yaml.invalid") if document is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput("yaml.invalid", f"The body is not YAML: {str(error).splitlines()[0]}.") from error
    if bodies.deeper_than(documents, limits.PAYLOAD_DEPTH_MAX + bodies.ENVELOPE_DEPTH):
        raise bodies.too_deep(limits.PAYLOAD_DEPTH_MAX + bodies.ENVELOPE_DEPTH)
    return documents
