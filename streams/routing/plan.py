"""What a route does with one record: not its business, filtered, refused, or an event to deliver. Pure.

Everything derives from the record and the route: whoever plans it again plans the same bytes, ids included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from streams import limits
from streams.bus.validate import EventFields
from streams.errors import InvalidInput
from streams.masses import derived_ids
from streams.matching.expressions import Expression, ExpressionFailed, compiled
from streams.matching.matchers import RecordView, refusal
from streams.records import Json, iso
from streams.routing.recipes import Filtered, Made, Recipe, Rejected, recipe_of
from streams.routing.recipes import Outcome as RecipeOutcome
from streams.routing.routes import ActiveRoute, Route, ToModule, ToTopic
from streams.routing.transform import TransformFailed, value_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmatched:
    """The record is not the route's business."""

    why: str


@dataclass(frozen=True, slots=True)
class Ready:
    """What is delivered."""

    event: EventFields
    parameters: Mapping[str, Json] | None = None  #: of a module's operation


Outcome: TypeAlias = Unmatched | Filtered | Rejected | Ready


class Plan:
    """A route, ready for records."""

    __slots__ = ("_parameters", "active", "id_of", "leaves", "recipe", "route")

    def __init__(self, active: ActiveRoute) -> None:
        self.active = active
        self.route: Route = active.route
        self.recipe = recipe_of(active.route)
        #: Id of a record → id of the event that the route makes of it.
        self.id_of = derived_ids("route", active.id)
        destination = active.route.destination
        self._parameters: tuple[tuple[str, Expression], ...] = ()
        if isinstance(destination, ToModule):
            self._parameters = tuple((name, compiled(text, numbers_alike=True)) for name, text in destination.parameters)
        #: Whether what it delivers leaves the product: then no loop goes through it.
        self.leaves = not isinstance(destination, ToTopic | ToModule)

    def outcome(self, topic: str | None, view: RecordView, depth: int = 0) -> Outcome:
        """What becomes of a record. `topic`: None if it is not known; `depth`: see `streams.causation`."""
        why = self.mismatch(topic, view)
        return self.outcome_of_match(view, depth) if why is None else Unmatched(why=why)

    def mismatch(self, topic: str | None, view: RecordView) -> str | None:
        """Why the record does not satisfy the matcher, a sentence; None: it does."""
        matcher, match = self.active.matcher, self.route.match
        if not matcher.concerns(topic, view.type):
            if topic is not None and topic not in self.route.topics:
                return f"the route reads {', '.join(self.route.topics)}, not {topic}"
            return f"its type {view.type} does not satisfy {', '.join(matcher.patterns or ('**',))}"
        try:
            if matcher.holds(view):
                return None
            return refusal(match, view) or f"where is false: {match.where}"
        except ExpressionFailed as error:
            return f"where has no value: {error}"

    def outcome_of_match(self, view: RecordView, depth: int = 0) -> Filtered | Rejected | Ready:
        """What becomes of a record that satisfies the matcher."""
        found = self.made(view, depth, {})
        return self.ready(found) if isinstance(found, Made) else found

    def made(self, view: RecordView, depth: int, known: dict[Recipe, RecipeOutcome]) -> RecipeOutcome:
        """What becomes of a record that satisfies the matcher, but for what is the destination's. `known`: what recipes made of it."""
        recipe = self.recipe
        if depth >= limits.TRIGGER_DEPTH_MAX and not self.leaves:
            message = f"{depth} routes, triggers and actions have each brought about what led to the next: this goes in circles."
            return recipe.withheld(view) or Rejected(code="route.loop", message=message, stage="deliver")
        found = known.get(recipe)
        if found is None:
            found = known[recipe] = recipe.outcome(view)
        return found

    def ready(self, made: Made) -> Ready | Rejected:
        """What the destination gets."""
        event = made.event(self.id_of(made.original))
        if not isinstance(self.route.destination, ToModule):
            return Ready(event)
        if not self._parameters:
            if isinstance(made.data, dict):
                return Ready(event, made.data)
            message = "The parameters of an operation are an object, and so is the payload then."
            return Rejected(code="transform.not-object", message=message, stage="transform")
        try:
            fields = made.fields
            return Ready(event, {name: value_of(expression, fields) for name, expression in self._parameters})
        except (TransformFailed, InvalidInput) as error:
            return Rejected(code=error.code, message=error.message, stage="transform")


def shown(event: EventFields) -> dict[str, Json]:
    """The event as people and programs get it."""
    return {
        "id": event.id,
        "type": event.type,
        "source": event.source,
        "subject": event.subject,
        "time": iso(event.time),
        "tenant": event.tenant,
        "correlation_id": event.correlation_id,
        "causation_id": event.causation_id,
        "data": event.data,
        "severity": event.severity,
        **dict.fromkeys(("aggregate_id", "sequence", "epoch", "input")),
    }
