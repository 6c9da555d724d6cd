"""`/v1/rules`: the correlation rules, as JSON or YAML documents."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from services.gateway import bodies, cursors, documents
from services.gateway.answers import Answer, ports_of
from services.gateway.keys import Role, requires
from streams import limits
from streams.errors import InvalidInput
from streams.records import Json

router = APIRouter(tags=["rules"])

RuleId = Annotated[str, Path(min_length=1, max_length=limits.ID_CHARACTERS_MAX, description="Rule id.")]
Why = Annotated[str, Query(max_length=1000, description="Why; kept with the change.")]

_BODY = documents.described("rule")


async def documents_of(request: Request) -> list[Json]:
    """A dependency: the rules of the body. Raises `InvalidInput` (`yaml.invalid`, `body.invalid`, …)."""
    return await documents.read(request, "rule")


@router.get("/v1/rules", response_class=Answer, summary="List rules", dependencies=[Depends(requires(Role.READER))])
async def list_rules(request: Request, limit: cursors.Limit = cursors.PAGE, cursor: cursors.Cursor = None) -> Any:
    """A page of rules, ordered by id."""
    (after,) = cursors.decode(cursor, str) if cursor is not None else ("",)
    found = [rule for rule in await ports_of(request).rules.list() if str(rule["id"]) > after]
    next_cursor = cursors.encode(str(found[limit - 1]["id"])) if len(found) > limit else None
    return Answer(cursors.page(found[:limit], next_cursor))


@router.get("/v1/rules/{rule_id}", response_class=Answer, summary="Show a rule", dependencies=[Depends(requires(Role.READER))])
async def show(
    request: Request,
    rule_id: RuleId,
    version: Annotated[int | None, Query(ge=1, description="This version instead of the one in force.")] = None,
) -> Any:
    """One rule."""
    return Answer(await ports_of(request).rules.show(rule_id, version))


@router.get(
    "/v1/rules/{rule_id}/history",
    response_class=Answer,
    summary="Versions of a rule",
    dependencies=[Depends(requires(Role.READER))],
    description="Every version, oldest first: content, who made it, when and why; also of a rule that was deleted.",
)
async def history(request: Request, rule_id: RuleId) -> Any:
    """The versions of a rule."""
    return Answer({"items": await ports_of(request).rules.history(rule_id), "next": None})


@router.get(
    "/v1/rules/{rule_id}/explain",
    response_class=Answer,
    summary="Why, and why not",
    dependencies=[Depends(requires(Role.READER))],
    description="How a group of the rule stands right now: what has been seen, what is missing, until when, and what may keep the rule "
    "from firing. `group` is `name=value`, once for each entry of group-by; without it the groups used last.",
)
async def explain(
    request: Request,
    rule_id: RuleId,
    group: Annotated[list[str], Query(description="name=value", max_length=100)] = [],  # noqa: B006  FastAPI copies it
) -> Any:
    """How a rule stands."""
    found: dict[str, str] = {}
    for text in group:
        name, separator, value = text.partition("=")
        if not separator or not name or name in found:
            raise InvalidInput("group.invalid", "A group is given as name=value, each name once.", pointer="/group")
        found[name] = value
    return Answer(await ports_of(request).rules.explain(rule_id, found))


@router.post(
    "/v1/rules",
    response_class=Answer,
    summary="Apply rules",
    openapi_extra=bodies.describes(**_BODY),
    description="Stores the rules, all or none, and answers when every worker uses them, or says which do not. With `dry_run` it only says "
    "what would change.",
)
async def apply(
    request: Request,
    who: Annotated[str, Depends(requires(Role.OPERATOR))],
    rules: Annotated[list[Any], Depends(documents_of)],
    why: Why = "",
    dry_run: Annotated[bool, Query(description="Only say what would change, as a diff.")] = False,
) -> Any:
    """Applies rules."""
    port = ports_of(request).rules
    return Answer(await port.plan(rules) if dry_run else await port.apply(rules, who=who, why=why))


@router.delete("/v1/rules/{rule_id}", response_class=Answer, summary="Delete a rule")
async def delete(request: Request, rule_id: RuleId, who: Annotated[str, Depends(requires(Role.OPERATOR))], why: Why = "") -> Any:
    """Deletes a rule."""
    return Answer(await ports_of(request).rules.delete(rule_id, who=who, why=why))
