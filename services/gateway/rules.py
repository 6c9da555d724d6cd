"""`/v1/rules`: the correlation rules, as JSON or YAML documents."""

from __future__ import annotations

from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Depends, Path, Query, Request

from services.gateway import bodies, cursors
from services.gateway.answers import Answer, ports_of
from services.gateway.keys import Role, requires
from streams import limits
from streams.documents import read_yaml
from streams.errors import InvalidInput, NotFound
from streams.records import Json

router = APIRouter(tags=["rules"])

RuleId = Annotated[str, Path(min_length=1, max_length=limits.ID_CHARACTERS_MAX, description="Rule id.")]
Why = Annotated[str, Query(max_length=1000, description="Why; kept with the change.")]

_BODY: dict[str, Any] = {
    bodies.JSON_TYPE: {"oneOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]},
    "application/yaml": {"type": "string", "description": "One rule a document."},
}


async def documents_of(request: Request) -> list[Json]:
    """A dependency: the documents of the body. Raises `InvalidInput` (`yaml.invalid`, `body.invalid`, …)."""
    if bodies.content_type(request) in bodies.YAML_TYPES:
        documents = parse_yaml(await bodies.read(request))
    else:
        given = await bodies.json_of(request)
        documents = given if isinstance(given, list) else [given]
    if not documents or any(not isinstance(document, dict) for document in documents):
        raise InvalidInput("body.invalid", "The body is a rule or an array of rules; a rule is an object.", pointer="")
    return documents


#: Bytes of a YAML body: its parser is slow.
YAML_BYTES_MAX = 256 * 1024


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


@router.get("/v1/rules", response_class=Answer, summary="List rules", dependencies=[Depends(requires(Role.READER))])
async def list_rules(request: Request, limit: cursors.Limit = cursors.PAGE, cursor: cursors.Cursor = None) -> Any:
    """A page of rules, ordered by id."""
    (after,) = cursors.decode(cursor, str) if cursor is not None else ("",)
    found = [rule for rule in await ports_of(request).rules.list() if str(rule["id"]) > after]
    next_cursor = cursors.encode(str(found[limit - 1]["id"])) if len(found) > limit else None
    return Answer(cursors.page(found[:limit], next_cursor))


@router.get("/v1/rules/{rule_id}", response_class=Answer, summary="Show a rule", dependencies=[Depends(requires(Role.READER))])
async def show(request: Request, rule_id: RuleId) -> Any:
    """One rule."""
    for rule in await ports_of(request).rules.list():
        if rule["id"] == rule_id:
            return Answer(rule)
    raise NotFound("rule.unknown", f"There is no rule {rule_id}.")


@router.post(
    "/v1/rules",
    response_class=Answer,
    summary="Apply rules",
    openapi_extra=bodies.describes(**_BODY),
    description="Stores the rules and answers when every worker uses them, or says which do not.",
)
async def apply(
    request: Request,
    who: Annotated[str, Depends(requires(Role.OPERATOR))],
    documents: Annotated[list[Any], Depends(documents_of)],
    why: Why = "",
) -> Any:
    """Applies rules."""
    return Answer(await ports_of(request).rules.apply(documents, who=who, why=why))


@router.delete("/v1/rules/{rule_id}", response_class=Answer, summary="Delete a rule")
async def delete(request: Request, rule_id: RuleId, who: Annotated[str, Depends(requires(Role.OPERATOR))], why: Why = "") -> Any:
    """Deletes a rule."""
    return Answer(await ports_of(request).rules.delete(rule_id, who=who, why=why))
