"""Which routes a record is the business of: the index of rules, over the matchers of routes. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from streams.correlation.index import RuleIndex
from streams.correlation.rules import ActiveRule, Rule
from streams.routing.routes import ActiveRoute


def index_of(routes: Iterable[ActiveRoute]) -> RuleIndex:
    """The index; its hits have the routes' ids, in the order in which they are given."""
    return RuleIndex([ActiveRule(rule=_as_rule(active), version=active.version, order=active.order) for active in routes])


def _as_rule(active: ActiveRoute) -> Rule:
    match = active.route.match
    return Rule(id=active.id, matchers=(match,), type="event_count", names=(match.name,))
