"""What lies on a control topic: rules on one, routes on another, both kept in the same way. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from streams.records import ControlKind
from streams.topics import CONTROL_ROUTES, CONTROL_RULES


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of documents."""

    name: ControlKind
    topic: str  #: logical name of its control topic

    @property
    def plural(self) -> str:
        """For people, and for names derived from it."""
        return f"{self.name}s"

    @property
    def source(self) -> str:
        """Of records about it."""
        return f"mplp/{self.plural}"


RULES = Kind(name="rule", topic=CONTROL_RULES)
ROUTES = Kind(name="route", topic=CONTROL_ROUTES)
