"""State machines as data: from each table come the refusals, the diagram in the documents, and the test that every arrow is taken. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from services.modules.operation import Refusal, conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """The states that one kind of thing goes through. `noun` is what people call it, `initial` where it may begin."""

    noun: str
    table: Mapping[Any, tuple[Any, ...]]  #: state → states that may follow
    initial: tuple[str, ...]

    def one(self) -> str:
        """One of what lives so: `a plan`, `an extension`."""
        return f"{'an' if self.noun[0] in 'aeiou' else 'a'} {self.noun}"

    def refusal(self, before: str, after: str, pointer: str | None = None) -> Refusal | None:
        """None if the table allows `before` → `after`, else the refusal, which names what is allowed."""
        allowed = self.table[before]
        if after in allowed:
            return None
        choices = f"only {', '.join(allowed)}" if allowed else "nothing: this state is final"
        return conflict(f"{self.one().capitalize()} that is {before} cannot become {after}; from {before} follows {choices}.", pointer)

    def arrows(self) -> Iterator[tuple[str, str]]:
        """Every transition of the table."""
        return ((before, after) for before, several in self.table.items() for after in several)

    def diagram(self) -> str:
        """The table as a Mermaid state diagram."""
        lines = ["stateDiagram-v2", *(f"    [*] --> {state}" for state in self.initial)]
        lines += [f"    {before} --> {after}" for before, after in self.arrows()]
        lines += [f"    {state} --> [*]" for state, following in self.table.items() if not following]
        return "\n".join(lines)
