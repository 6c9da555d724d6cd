"""What a rule intends to do, as it goes along with a composite: rendered where the records are, performed by whoever reads the log. Pure.

The header `mplp_actions` of a composite has its actions as JSON, in the order of the rule, with all templates filled in. So they are those
of the version of the rule that said it, whatever became of the rule since, and see records that the log of composites does not have. Both
become true in one append: a composite without its actions, or actions without their composite, cannot be. What the composite says itself
(its subject, its data, its own JSON as the body of a webhook) is not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import orjson

from streams import limits
from streams.causation import depth_headers
from streams.correlation.actions import (
    KINDS,
    Intended,
    IntendedCall,
    IntendedEvent,
    IntendedSignal,
    IntendedStart,
    Unrendered,
    as_json,
    render,
)
from streams.correlation.confidence import event_values
from streams.correlation.rules import Rule
from streams.correlation.seen import Draft
from streams.errors import InvalidInput
from streams.records import CompositeEvent, Json, derived_id
from streams.topics import ACTIONS_HEADER

Headers = tuple[tuple[str, bytes], ...]


def headers_of_said(rule: Rule, composite: CompositeEvent, draft: Draft) -> Headers:
    """What goes along with a composite besides its fields: how deep in a chain it lies, and what is to be done because of it."""
    records = draft.found.records
    headers = depth_headers(max((seen.depth for seen in records), default=0))
    if not rule.actions or draft.revision or draft.retracted:
        return headers
    return (*headers, (ACTIONS_HEADER, packed(render(rule, composite, event_values(records)))))


def packed(intended: Sequence[Intended]) -> bytes:
    """The header's value. What does not fit into the payload of one record, or is no JSON, is not performed, and says so."""
    texts: list[bytes] = []
    room = limits.PAYLOAD_BYTES_MAX
    for index, each in enumerate(intended):
        try:
            text = orjson.dumps(described(each))
        except orjson.JSONEncodeError as error:
            text = _unrendered(each, index, "action.unrendered", f"What templates gave is no JSON: {error}")
        if len(text) > room:
            text = _unrendered(
                each, index, "payload.too-large", f"The actions of one composite have at most {limits.PAYLOAD_BYTES_MAX:,} bytes."
            )
        room -= len(text)
        texts.append(text)
    return b"[" + b",".join(texts) + b"]"


def _unrendered(intended: Intended, index: int, code: str, message: str) -> bytes:
    return orjson.dumps(described(Unrendered(key=intended.key, index=index, action=_kind(intended), code=code, message=message)))


def unpacked(value: bytes, composite: CompositeEvent) -> list[Intended]:
    """The actions of a composite in the order of its rule. Raises `InvalidInput` (`action.unreadable`): another version wrote them."""
    try:
        return [_unpacked(item, composite, index) for index, item in enumerate(orjson.loads(value))]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput("action.unreadable", f"What is to be done cannot be read: {type(error).__name__}: {error}") from error


def key_of(composite_id: str, index: int) -> str:
    """The idempotency key of a composite's action."""
    return derived_id("action", composite_id, index)


def _kind(intended: Intended) -> str:
    match intended:
        case IntendedEvent():
            return "emit"
        case IntendedStart():
            return "start-workflow"
        case IntendedSignal():
            return "signal-workflow"
        case IntendedCall():
            return "webhook"
        case Unrendered(action=action):
            return action
        case _:
            assert_never(intended)


def described(intended: Intended) -> Mapping[str, Json]:
    """An action as JSON: `action` (its kind), and its fields as in the rule; `code` and `message` of one that cannot be performed."""
    fields: dict[str, Json]
    match intended:
        case IntendedEvent(type=type_):
            fields = {"type": type_}
        case IntendedStart(workflow_id=workflow_id, input=input_):
            fields = {"id": workflow_id, "input": input_}
        case IntendedSignal(execution_id=execution_id, name=name, data=data):
            fields = {"execution": execution_id, "name": name, "data": data}
        case IntendedCall(url=url, headers=headers, body=body, whole=whole):
            fields = {"url": url, "headers": dict(headers)} | ({} if whole else {"body": body})
        case Unrendered(code=code, message=message):
            fields = {"code": code, "message": message}
        case _:
            assert_never(intended)
    return {"action": _kind(intended), **fields}


def _unpacked(item: Mapping[str, Any], composite: CompositeEvent, index: int) -> Intended:
    key, action = key_of(composite.id, index), item["action"]
    if action not in KINDS.values():
        raise ValueError(f"{action!r} is no action")
    if "code" in item:
        return Unrendered(key=key, index=index, action=action, code=item["code"], message=item["message"])
    match action:
        case "emit":
            return IntendedEvent(key=key, type=item["type"], subject=composite.subject, data=composite.data)
        case "start-workflow":
            return IntendedStart(key=key, workflow_id=item["id"], input=item["input"])
        case "signal-workflow":
            return IntendedSignal(key=key, execution_id=item["execution"], name=item["name"], data=item["data"])
        case _:
            whole = "body" not in item
            body = as_json(composite) if whole else item["body"]
            return IntendedCall(key=key, url=item["url"], headers=item["headers"], body=body, whole=whole)
