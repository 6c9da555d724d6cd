"""How a list is asked of all partitions and merged. Pure.

The partition that got the request puts it to every partition, itself as well, as a request of the module `gather` under a key that
belongs there: so all work side by side, and their answers come back to its inbox. The response follows when all are there, or when the
time is over, with `complete: false` and the partitions that are missing. That is after `limits.GATHER_MS`, or, if the own partition took
long itself, when the others have had `limits.GATHER_TIMES` as long as it; never later than the request's deadline allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import orjson

from services.modules.answers import refusal_in
from services.modules.built_in import Aggregate, BuiltIn
from services.modules.gather.evolve import evolve
from services.modules.gather.state import EVENTS, Gathering, QueryAnswered, QueryAsked, QueryMerged
from services.modules.lookup import ENVELOPE_BYTES, fitting
from services.modules.operation import (
    NOTHING_FOLLOWS,
    Answered,
    Decided,
    Follow,
    Listing,
    Operation,
    Outcome,
    Page,
    Parameters,
    Pending,
    Refusal,
    Request,
)
from services.modules.outgoing import ask, asked_by
from streams.limits import GATHER_MS_MAX, GATHER_SHARE, PAYLOAD_BYTES_MAX
from streams.log.types import Due, Send, View
from streams.records import Json, ModuleMessage, derived_id
from streams.topics import partition_of

NAME = "gather"


@lru_cache(maxsize=4096)
def key_in(partition: int, partitions: int) -> str:
    """A key that belongs to a partition."""
    number = 0
    while partition_of(f"list-{number}", partitions) != partition:
        number += 1
    return f"list-{number}"


def begin(view: View[Any], operation: Operation, parameters: Parameters, request: Request) -> Outcome:
    """Asks all partitions."""
    gathering_id = request.new_id("gathering")
    if view.state(gathering_id) is not None:
        return Pending(aggregate_id=gathering_id)
    patience_us = GATHER_MS_MAX * 1000
    if request.caller.deadline_us is not None:
        patience_us = min(patience_us, max(0, int((request.caller.deadline_us - request.time_us) * GATHER_SHARE)))
    event = QueryAsked(
        caller=request.caller,
        parameters=parameters.model_dump(mode="json", by_alias=True, exclude_none=True),
        partitions=view.partitions,
        partition=view.partition,
        end_us=request.time_us + patience_us,
    )
    state = evolve(None, event, gathering_id, request.time_us)
    assert state is not None
    events = (Decided(aggregate_id=gathering_id, event=event),)
    return Pending(aggregate_id=gathering_id, events=events, effects=tuple(outstanding(state)))


def outstanding(state: Gathering) -> Iterator[Send]:
    """The questions that were not answered."""
    caller = state.caller
    for partition in _missing(state):
        yield ask(
            NAME, state.gathering_id, str(partition), caller.target_module, caller.operation, state.parameters,
            id=derived_id("gather", state.gathering_id, partition), time_us=state.time_us, deadline_us=state.end_us,
            correlation_id=caller.correlation_id, tenant=caller.tenant, key=key_in(partition, state.partitions),
        )  # fmt: skip


def take(view: View[Any], message: ModuleMessage, time_us: int) -> Follow | None:
    """What follows from a partition's answer."""
    gathering_id, part = asked_by(message)
    if message.kind != "response" or not part.isdecimal():
        return None
    state = view.state(gathering_id)
    partition = int(part)
    if not isinstance(state, Gathering) or partition not in _missing(state):
        return NOTHING_FOLLOWS
    # One entry may be so large that the event which keeps the answer would not be a record.
    answered = message.status == "success" and len(orjson.dumps(message.data)) <= PAYLOAD_BYTES_MAX - ENVELOPE_BYTES
    event = QueryAnswered(partition=partition, answer=message.data if answered else None)
    after = evolve(state, event, gathering_id, time_us)
    assert after is not None
    told = Decided(aggregate_id=gathering_id, event=event)
    refusal = refusal_in(message)
    if refusal is not None and partition == state.partition:  # what it refuses is no question to the others either
        return _told(after, refusal, told)
    return Follow(events=(told,)) if _missing(after) else _merged(after, told)


def fire(view: View[Any], state: Gathering, timer: Due) -> Follow:
    """The time is over: what is there is the answer."""
    return _merged(state)


def _missing(state: Gathering) -> list[int]:
    return [partition for partition in range(state.partitions) if str(partition) not in state.answers]


def _merged(state: Gathering, *events: Decided) -> Follow:
    from services.modules.catalogue import MODULES  # the catalogue knows the modules, and they this

    operation = MODULES[state.caller.target_module].operations[state.caller.operation]
    refused = [int(partition) for partition, answer in state.answers.items() if not isinstance(answer, dict)]
    missing = tuple(sorted([*_missing(state), *refused]))
    answer = merge(operation.result, state.parameters, [each for each in state.answers.values() if isinstance(each, dict)], missing)
    return _told(state, answer, *events, missing=missing)


def _told(state: Gathering, answer: Json | Refusal, *events: Decided, missing: tuple[int, ...] = ()) -> Follow:
    merged = Decided(aggregate_id=state.gathering_id, event=QueryMerged(missing=missing))
    answered = Answered(caller=state.caller, aggregate_id=state.gathering_id, answer=answer)
    return Follow(events=(*events, merged), answers=(answered,))


def merge(result: type[Any], parameters: Json, lists: list[Mapping[str, Any]], missing: tuple[int, ...]) -> Json | Refusal:
    """One list of several, as the operation's result: in order of its ids, at most as long as was asked."""
    assert issubclass(result, Listing), "only lists are gathered"
    entries, key = result.ENTRIES, result.KEY
    # Behind the last that a partition told it may have more, which may come before what others told.
    bound = min((each["next"] for each in lists if each.get("next") is not None), default=None)
    told = (entry for each in lists for entry in each[entries] if bound is None or entry[key] <= bound)
    found = sorted(told, key=lambda entry: str(entry[key]))
    limit = parameters.get("limit", Page.model_fields["limit"].default)
    shown = found[:limit]
    more = len(found) > len(shown) or bound is not None
    answer = {
        **(lists[0] if lists else {}),
        entries: shown,
        "total": sum(each["total"] for each in lists),
        "next": shown[-1][key] if more and shown else None,
        "complete": not missing,
        "missingPartitions": list(missing),
    }
    return fitting(answer, result)


MODULE = BuiltIn(
    operations={},
    events=EVENTS,
    evolve=evolve,
    aggregates=(Aggregate(state=Gathering, due=lambda state: state.due_us, fire=fire, outstanding=outstanding),),
    take=take,
)
