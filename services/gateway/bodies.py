"""Request bodies: read whole, bounded, parsed strictly (no NaN, bounded depth, declared content type), checked against a model."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from services.gateway.problems import UnsupportedMediaType, violations_of
from streams import limits
from streams.errors import InvalidDocument, InvalidInput
from streams.records import Json
from streams.strict import json_twice

Model = TypeVar("Model", bound=BaseModel)

JSON_TYPE = "application/json"
NDJSON_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})

#: Levels of a body beyond those of a payload in it: `{"input": …}`, an array of records with `data`.
ENVELOPE_DEPTH = 4

#: Characters of the longest integer of 64 bits, with its sign.
INTEGER_CHARACTERS_MAX = 20

_LONG_NUMBER = re.compile(rb"\d{19}")


def content_type(request: Request) -> str:
    """The media type of the body without its parameters, lower case; empty if none is given."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read(request: Request) -> bytes:
    """The whole body. `services.gateway.guard` has bounded it. Raises `InvalidInput` (`body.incomplete`) if the client goes."""
    try:
        return await request.body()
    except ClientDisconnect as error:
        raise InvalidInput("body.incomplete", "The connection ended before the body did.") from error


def parse_json(body: bytes, *, depth_max: int = limits.PAYLOAD_DEPTH_MAX + ENVELOPE_DEPTH) -> Json:
    """The JSON value. Raises `InvalidInput`: `json.invalid` (with the place in the sentence), `json.too-deep`."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "depth limit" in str(error):
            raise too_deep(depth_max) from error
        raise InvalidInput("json.invalid", f"The body is not JSON: {error}.") from error
    if deeper_than(value, depth_max):
        raise too_deep(depth_max)
    twice = json_twice(body, value)
    if twice:
        raise InvalidDocument("body.invalid", twice[0].message, twice)
    if _LONG_NUMBER.search(body):
        # orjson reads an integer beyond 64 bits as a rounded double. The standard parser asks us.
        json.loads(body, parse_int=_integer)
    return value


def _integer(text: str) -> int:
    if len(text) > INTEGER_CHARACTERS_MAX or not -(2**63) <= int(text) < 2**64:
        raise InvalidInput("number.invalid", f"The integer {text[:INTEGER_CHARACTERS_MAX]}… has more than 64 bits.")
    return int(text)


def too_deep(depth_max: int) -> InvalidInput:
    """The refusal of a document that is nested too deeply."""
    return InvalidInput("json.too-deep", f"The body is nested more than {depth_max} levels deep.")


def deeper_than(value: Json, depth: int) -> bool:
    """Whether a JSON value has more than `depth` levels of arrays and objects; without recursion."""
    level = _containers([value])
    for _ in range(depth):
        level = [child for parent in level for child in _containers(parent.values() if isinstance(parent, dict) else parent)]
        if not level:
            return False
    return bool(level)


def _containers(values: Iterable[Json]) -> list[Any]:
    return [value for value in values if isinstance(value, (dict, list))]


async def json_of(request: Request) -> Json:
    """The body as JSON; None if it is empty. Raises `UnsupportedMediaType`, and as `parse_json`.

    A body without the content type of JSON is refused, not guessed at: a page on the web can make a browser send plain
    text or a form to a loopback address, but not JSON.
    """
    body = await read(request)
    if not body:
        return None
    if content_type(request) != JSON_TYPE:
        raise UnsupportedMediaType(
            "content-type.unsupported",
            f"The body is declared as {content_type(request) or 'nothing'}, this route takes {JSON_TYPE}.",
            advice=f"Send the header Content-Type: {JSON_TYPE}.",
        )
    return parse_json(body)


def validated(model: type[Model], value: Json) -> Model:
    """`value` as `model`. Raises `InvalidDocument` (`body.invalid`) with every fault and its pointer."""
    try:
        return model.model_validate({} if value is None else value)
    except ValidationError as error:
        faults = violations_of(list(error.errors(include_url=False, include_input=False, include_context=False)), code="body.invalid")
        raise InvalidDocument("body.invalid", faults[0].message, faults) from error


def body_of(model: type[Model]) -> Callable[[Request], Awaitable[Model]]:
    """A dependency: the JSON body as `model`."""

    async def read_body(request: Request) -> Model:
        return validated(model, await json_of(request))

    return read_body


def describes(model: type[BaseModel] | None = None, /, **schemas: Json) -> dict[str, Any]:
    """The part of a route's OpenAPI description that says what its body is: a model as JSON, or schemas by media type."""
    if model is not None:
        schemas[JSON_TYPE] = model.model_json_schema()
    return {"requestBody": {"content": {media_type: {"schema": schema} for media_type, schema in schemas.items()}}}


#: A body that is any JSON object.
ANY_OBJECT = {"requestBody": {"content": {JSON_TYPE: {"schema": {"type": "object"}}}}}
