"""What rules do besides saying composites, seen from the outside: each intended action once in effect, and nothing that was not intended.

What is intended stands in the headers of the composites that count, and in the uninterrupted fold of their matches (`watch`). Whatever is
done is done under a key that derives from the composite, in the same bytes each time, after the composite was stored, and is told after
it was done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson

from streams.codec.avro import Codec
from streams.correlation.actions import Intended, IntendedCall, IntendedEvent, IntendedSignal, IntendedStart, Unrendered
from streams.correlation.intentions import unpacked
from streams.log.ports import Stored
from streams.records import CompositeEvent, Delivery, SystemEvent, WorkflowCommand
from streams.topics import ACTIONS_HEADER, COMMANDS, DELIVERIES, SYSTEM_EVENTS

#: What rules' actions have as the beginning of their source.
BY_RULES = "mplp/rules/"
#: Why what stays in Kafka may be given up.
_NOT_DONE = frozenset({"action.unrendered", "rule.loop", "payload.too-large"})

Violate = Callable[[str, str], None]


@dataclass(slots=True)
class Due:
    """One action of one composite."""

    intended: Intended
    effects: int = 0
    over: str | None = None  #: `delivered` or `dead`, as a delivery says


class ActionWatch:
    """See the module."""

    def __init__(self, codec: Codec, violate: Violate) -> None:
        self._codec, self._violate = codec, violate
        self._due: dict[str, Due] = {}  # by key
        self._bytes: dict[str, bytes] = {}  # of what was done, by key
        self.counts: Counter[str] = Counter()

    def said(self, composite: CompositeEvent, record: Stored) -> None:
        """A composite counts."""
        value = dict(record.headers).get(ACTIONS_HEADER)
        for intended in [] if value is None else unpacked(value, composite):
            self._due[intended.key] = Due(intended)

    def stored(self, topic: str, record: Stored) -> None:
        """A record was stored in a topic that actions write to."""
        found = self._codec.decode(record.value) if topic != SYSTEM_EVENTS or _by_rules(record) else None
        match found:
            case SystemEvent(type="rule.loop-stopped" | "rule.action-failed"):
                self.counts["reports"] += 1
            case SystemEvent():
                self._done(found.id, IntendedEvent, record.value or b"")
            case WorkflowCommand(command="start"):
                self._done(found.execution_id, IntendedStart, record.value or b"")
            case WorkflowCommand():
                self._done(found.id, IntendedSignal, record.value or b"")
            case Delivery():
                self._told(found)

    def called(self, key: str, url: str, body: bytes) -> None:
        """A webhook was called."""
        self._done(key, IntendedCall, url.encode() + b" " + _without_place(body))

    def _done(self, key: str, kind: type[Intended], what: bytes) -> None:
        due = self._due.get(key)
        if due is None or not isinstance(due.intended, kind):
            self._violate("acts-on-what-counts", f"{kind.__name__} {key} is done; {'nothing' if due is None else due.intended} was due")
            return
        if self._bytes.setdefault(key, what) != what:
            self._violate("acts-the-same", f"{kind.__name__} {key} was {self._bytes[key]!r} and is {what!r}")
        due.effects += 1
        self.counts["acts"] += 1
        self.counts["again"] += due.effects > 1

    def _told(self, delivery: Delivery) -> None:
        key, status = delivery.data["key"], delivery.status
        due = self._due.get(key)
        if due is None:
            self._violate("acts-on-what-counts", f"a delivery tells of {key}, which nobody intended")
            return
        if status == "delivered" and not due.effects:
            self._violate("told-after-done", f"{due.intended} is told as done, and is not")
        if status == "dead" and not isinstance(due.intended, IntendedCall) and delivery.data["code"] not in _NOT_DONE:
            self._violate("acts-at-last", f"{due.intended} is given up: {delivery.error}")
        if status == "delivered" and isinstance(due.intended, Unrendered):
            self._violate("acts-on-what-counts", f"{due.intended} is told as done")
        if status in ("delivered", "dead"):
            due.over = status
            self.counts[status] += 1

    def unfinished(self) -> Iterator[str]:
        """What was intended and is neither done nor given up."""
        for key, due in self._due.items():
            if due.over is None:
                yield f"{due.intended.__class__.__name__} {key} is neither done nor given up"


def _by_rules(record: Stored) -> bool:
    return dict(record.headers).get("ce_source", b"").startswith(BY_RULES.encode())


def _without_place(body: bytes) -> bytes:
    return orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)


#: Topics in which actions have effects.
WRITTEN = frozenset({SYSTEM_EVENTS, COMMANDS, DELIVERIES})
