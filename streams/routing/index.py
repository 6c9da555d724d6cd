"""Which routes a record is the business of: the index of rules, over the matchers of routes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streams.correlation.index import Bucket, RuleIndex
from streams.correlation.rules import ActiveRule, Rule
from streams.matching.matchers import RecordView
from streams.routing.routes import ActiveRoute

_TYPES_REMEMBERED_MAX = 10_000


class RouteIndex:
    """The matchers of the routes that read a topic."""

    def __init__(self, topic: str, routes: Iterable[ActiveRoute]) -> None:
        """`topic`: logical name."""
        self._topic = topic
        self._index = RuleIndex([ActiveRule(rule=_as_rule(active), version=active.version, order=active.order) for active in routes])
        self._by_type: dict[str, tuple[str, ...] | Bucket] = {}  # routes that want all records of a type, or who must be asked

    def routes(self, view: RecordView) -> Sequence[str]:
        """Ids of the routes whose matchers the record satisfies, in the order in which they were given.

        Raises `InvalidInput` if the record cannot be read; who has an expression without a value does not get the record.
        """
        found = self._by_type.get(view.type)
        if found is None:
            found = self._of_type(view.type)
        return found if type(found) is tuple else [hit.active.id for hit in self._index.hits_of(found, view)]  # type: ignore[arg-type]

    def _of_type(self, record_type: str) -> tuple[str, ...] | Bucket:
        bucket = self._index.candidates(self._topic, record_type)
        found: tuple[str, ...] | Bucket = bucket
        if not bucket.keyed and all(candidate.matcher.bare for candidate in bucket.open):
            found = tuple(candidate.active.id for candidate in bucket.open)
        if len(self._by_type) >= _TYPES_REMEMBERED_MAX:
            self._by_type.clear()
        self._by_type[record_type] = found
        return found


def _as_rule(active: ActiveRoute) -> Rule:
    match = active.route.match
    return Rule(id=active.id, matchers=(match,), type="event_count", names=(match.name,))
