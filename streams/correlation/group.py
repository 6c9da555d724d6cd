"""One group of one rule: puts records into their order, and says what is found eagerly (with revisions) or finally.

Theory of operation. The watermark splits the records in two: those before it are *settled* (nothing can come between them
any more), those from it on are *pending*. The settled walk has folded exactly the settled records. With `output: final` that is
all: a record is folded when it settles, and what it completes is said once. With `output: eager` a second walk, the *head*, has
folded the pending records too. A record that comes last in order steps the head; one that comes in between sends the head back
to a copy of the settled walk and through the pending records again, and the difference to what was said is said: new
findings, higher revisions, retractions. What was said of settled records needs no memory: it stands.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import NamedTuple

from streams.correlation.folds import Walk
from streams.correlation.rules import ActiveRule
from streams.correlation.seen import Draft, Found, Seen
from streams.records import Json, derived_id


class Said(NamedTuple):
    """The last that was said under a composite's id."""

    revision: int
    window_end_us: int
    found: Found | None  #: None: it was retracted


def _order(seen: Seen) -> tuple[int, int | str]:
    return seen[0], seen[1]


class Group:
    """The state of one group of one version of a rule."""

    __slots__ = ("_active", "_arrivals", "_eager", "_head", "_key", "_pending", "_pending_ids", "_said", "_settled", "scheduled_us")

    def __init__(self, active: ActiveRule, key: str) -> None:
        self._active = active
        self._key = key
        self._eager = active.rule.output == "eager"
        self._settled = Walk(active.rule)
        self._head = Walk(active.rule) if self._eager else self._settled
        self._pending: list[Seen] = []
        self._pending_ids: set[str] = set()
        self._said: dict[str, Said] = {}
        self._arrivals = 0
        self.scheduled_us: int | None = None  #: when the engine will settle it next

    def holds(self, record_id: str) -> bool:
        """Whether a record of this id is kept: a second one is a duplicate."""
        return record_id in self._pending_ids or self._settled.fold.holds(record_id)

    def add(self, seen: Seen) -> list[Draft]:
        """A record that is neither late nor a duplicate, after `settle` with the current watermark."""
        pending = self._pending
        self._pending_ids.add(seen.id)
        if not self._eager:
            insort(pending, seen._replace(tie=seen.id), key=_order)
            return []
        self._arrivals += 1
        seen = seen._replace(tie=self._arrivals)
        last = not pending or pending[-1].time_us <= seen.time_us
        if last:
            pending.append(seen)
            found = self._head.add(seen)
            return [] if found is None else self._say({self._id(found): found}, replace_all=False)
        insort(pending, seen, key=_order)
        return self._revise()

    def settle(self, watermark_us: int) -> list[Draft]:
        """The watermark has come this far."""
        pending, walk = self._pending, self._settled
        drafts: list[Draft] = []
        if pending and pending[0].time_us < watermark_us:
            count = bisect_left(pending, watermark_us, key=lambda seen: seen[0])
            for seen in pending[:count]:
                self._pending_ids.discard(seen.id)
                found = walk.add(seen)
                if found is not None and not self._eager:
                    drafts.append(Draft(self._active.id, self._key, self._id(found), found))
            del pending[:count]
        walk.forget(watermark_us)
        if self._said:
            self._said = {cid: said for cid, said in self._said.items() if said.window_end_us >= watermark_us}
        return drafts

    def due_us(self) -> int | None:
        """The watermark at which `settle` has something to do or the group can be forgotten; None: it is empty."""
        if self._pending:
            # Eagerly nothing is said when a record settles: it is enough to come by when the whole group may be over.
            return self._pending[0].time_us + 1 if not self._eager else self._pending[-1].time_us + self._active.rule.timespan_us
        last_us = self._settled.fold.last_us
        return self._settled.silent_until_us if last_us is None else last_us + self._active.rule.timespan_us

    @property
    def empty(self) -> bool:
        """Whether forgetting the group would change nothing."""
        return not self._pending and self._settled.empty

    def _revise(self) -> list[Draft]:
        self._head = self._settled.copy()
        findings = (self._head.add(seen) for seen in self._pending)
        return self._say({self._id(found): found for found in findings if found is not None}, replace_all=True)

    def _say(self, findings: dict[str, Found], *, replace_all: bool) -> list[Draft]:
        """The drafts that lead from what was said to `findings` (all that stands, or what is added)."""
        drafts = []
        if replace_all:
            for cid, said in self._said.items():
                if cid not in findings and said.found is not None:
                    drafts.append(self._draft(cid, said.found, said.revision + 1, retracted=True))
        for cid, found in findings.items():
            before = self._said.get(cid)
            if before is None:
                drafts.append(self._draft(cid, found, 0))
            elif before.found != found:
                drafts.append(self._draft(cid, found, before.revision + 1))
        for draft in drafts:
            self._said[draft.composite_id] = Said(draft.revision, draft.found.window_end_us, None if draft.retracted else draft.found)
        return drafts

    def _draft(self, composite_id: str, found: Found, revision: int, *, retracted: bool = False) -> Draft:
        return Draft(self._active.id, self._key, composite_id, found, revision, retracted)

    def _id(self, found: Found) -> str:
        return derived_id("composite", self._active.id, self._active.version, self._key, found.firing)

    def dump(self) -> Json:
        """As JSON, for checkpoints. Findings are not in it: they follow from the records."""
        return {
            "settled": self._settled.dump(), "pending": [seen.dump() for seen in self._pending], "arrivals": self._arrivals,
            "said": [[cid, said.revision, said.window_end_us] for cid, said in self._said.items()],
        }  # fmt: skip

    def load(self, state: Json) -> None:
        """Takes over what `dump` gave."""
        self._settled.load(state["settled"])
        self._pending = [Seen.load(item) for item in state["pending"]]
        self._pending_ids = {seen.id for seen in self._pending}
        self._arrivals = state["arrivals"]
        if self._eager:
            self._head = self._settled.copy()
            findings = [found for seen in self._pending if (found := self._head.add(seen)) is not None]
            standing = {self._id(found): found for found in findings}
            self._said = {cid: Said(revision, end_us, standing.get(cid)) for cid, revision, end_us in state["said"]}
