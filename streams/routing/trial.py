"""Trying routes on records from a file: the same plan as in the worker, no server, nothing delivered. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, assert_never

from streams.correlation.trial import BrokenLine, read_record
from streams.errors import InvalidInput
from streams.matching.matchers import RecordView
from streams.routing.plan import Outcome, Plan, Ready, Unmatched, shown
from streams.routing.recipes import Filtered, Rejected
from streams.routing.routes import Route, active

_BROKEN_NAMED_MAX = 100


@dataclass(slots=True)
class Summary:
    """What happened to the lines of a trial."""

    records: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)  #: a record counts once per route
    broken_count: int = 0
    broken: list[BrokenLine] = field(default_factory=list)  #: the first of them

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        names = ("delivered", "filtered", "unmatched", "error")
        return {
            "records": self.records, **{name: self.outcomes[name] for name in names},
            "broken": [line.to_dict() for line in self.broken],
        }  # fmt: skip


class Trial:
    """Routes over records, in their order. A record that says no time came at `now_us`, as if it were produced now."""

    def __init__(self, routes: Iterable[Route], *, now_us: int) -> None:
        self._now_us = now_us
        self._plans = [Plan(active(route)) for route in routes]
        self._lines = 0
        self.summary = Summary()

    def line(self, text: bytes | str) -> Iterator[dict[str, Any]]:
        """The next line: what becomes of its record, by route. A broken line is counted and named in `summary`; an empty one is skipped."""
        self._lines += 1
        if not text.strip():
            return
        try:
            topic, plain = read_record(text, default_id=f"line-{self._lines:012d}", default_time_us=self._now_us)
        except InvalidInput as error:
            self.summary.broken_count += 1
            if len(self.summary.broken) < _BROKEN_NAMED_MAX:
                self.summary.broken.append(BrokenLine.of(self._lines, error))
            return
        self.summary.records += 1
        view = RecordView({"causation_id": None, **plain})
        for plan in self._plans:
            told = _told(plan, plain["id"], plan.outcome(topic, view))
            self.summary.outcomes[told["outcome"]] += 1
            yield told


def _told(plan: Plan, record_id: str, outcome: Outcome) -> dict[str, Any]:
    """`id`, `route`, `outcome`, `record`, `error`; besides `destination` and, of a module, `parameters`, or `why` not."""
    about: dict[str, Any] = {"id": record_id, "route": plan.route.id}
    match outcome:
        case Ready(event=event, parameters=parameters):
            more = {} if parameters is None else {"parameters": parameters}
            return {
                **about, "outcome": "delivered", "record": shown(event), "error": None,
                "destination": plan.route.destination.shown, **more,
            }  # fmt: skip
        case Filtered(why=why):
            return {**about, "outcome": "filtered", "record": None, "error": None, "why": why}
        case Unmatched(why=why):
            return {**about, "outcome": "unmatched", "record": None, "error": None, "why": why}
        case Rejected(code=code, message=message, stage=stage):
            error = {"code": code, "message": message, "stage": stage}
            return {**about, "outcome": "error", "record": None, "error": error}
        case _:
            assert_never(outcome)
