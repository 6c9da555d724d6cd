"""What flows and counters mean, written a second time and as plainly as possible: dictionaries and ifs, one input after another.

It shares no code with `machines`, so that a slip in one does not hide in the other. Only ids and records' field names are common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from streams.records import ModuleMessage, Record, derived_id, from_micros, to_micros
from streams.topics import REQUESTS, RESPONSES, module_requests

Essence = tuple[Any, ...]  #: what matters of an event


@dataclass(frozen=True, slots=True)
class Legit:
    """An effect that a valid event asks for."""

    id: str
    topic: str
    key: str
    record: Record


class Model(Protocol):
    """A machine, sequentially."""

    def decide(self, record: Record | None, time_us: int, event: Any) -> tuple[list[Essence], list[Legit]]:
        """What had to follow from an input (None: the timer of `event`'s aggregate): essences of events, and effects."""

    def evolve(self, event: Any) -> None:
        """Takes over a decided event."""

    def essence(self, event: Any) -> Essence:
        """What matters of an event."""

    def due(self, aggregate_id: str) -> int | None:
        """When the aggregate's timer is due."""

    def has_ended(self, aggregate_id: str) -> bool:
        """Whether nothing will happen to the aggregate by itself."""

    def shown(self) -> dict[str, Any]:
        """State per aggregate, in the words of the machine's own state."""


class FlowModel:
    """Flows by id."""

    def __init__(self, is_local: Callable[[str], bool]) -> None:
        self.flows: dict[str, dict[str, Any]] = {}
        self.notes: set[str] = set()

    def decide(self, record: Record | None, time_us: int, event: Any) -> tuple[list[Essence], list[Legit]]:
        """See `Model.decide`."""
        if record is None:
            return self._timer(event.aggregate_id, time_us)
        if isinstance(record, ModuleMessage):
            return self._answer(record, time_us)
        flow_id: str = record.execution_id  # type: ignore[attr-defined]
        command: str = record.command  # type: ignore[attr-defined]
        flow = self.flows.get(flow_id)
        if command == "start":
            if flow:
                return [], []
            plan = record.data["plan"]
            begun, effects = self._begin(flow_id, plan, 1, 1, time_us)
            return [("execution.started", flow_id, 0, 0), begun], effects
        if record.id in self.notes:
            return [], []
        if not flow or flow["status"] != "running":
            return [("command.refused", None, 0, 0)], []
        if command == "cancel":
            return [("execution.cancelled", flow_id, 0, 0)], []
        return [("note.taken" if command == "answer" else "signal.received", flow_id, 0, record.data["amount"])], []

    def _answer(self, record: ModuleMessage, time_us: int) -> tuple[list[Essence], list[Legit]]:
        flow_id = record.execution_id or ""
        flow = self.flows.get(flow_id)
        if not flow or flow["status"] != "running" or str(flow["step"]) != record.step_id:
            return [], []
        kind = flow["plan"][flow["step"] - 1].split("/")[0]
        if kind == "wait" or (kind == "out" and record.attempt != flow["attempt"]):
            return [], []
        if record.status == "error":
            return [("execution.failed", flow_id, 0, 0)], []
        return self._completed(flow_id, record.data["value"], time_us)

    def _timer(self, flow_id: str, time_us: int) -> tuple[list[Essence], list[Legit]]:
        flow = self.flows[flow_id]
        kind = flow["plan"][flow["step"] - 1].split("/")[0]
        if kind == "wait":
            return self._completed(flow_id, 0, time_us)
        if kind == "out" and flow["attempt"] == 3:
            return [("execution.timed_out", flow_id, 0, 0)], []
        begun, effects = self._begin(flow_id, flow["plan"], flow["step"], flow["attempt"] + 1, time_us)
        return [("step.retried", *begun[1:])], effects

    def _completed(self, flow_id: str, value: int, time_us: int) -> tuple[list[Essence], list[Legit]]:
        flow = self.flows[flow_id]
        done = ("step.completed", flow_id, flow["step"], value)
        if flow["step"] == len(flow["plan"]):
            return [done, ("execution.completed", flow_id, 0, 0)], []
        begun, effects = self._begin(flow_id, flow["plan"], flow["step"] + 1, 1, time_us)
        return [done, begun], effects

    def _begin(self, flow_id: str, plan: list[str], step: int, attempt: int, time_us: int) -> tuple[Essence, list[Legit]]:
        kind, _, argument = plan[step - 1].partition("/")
        begun = ("step.started", flow_id, step, attempt)
        if kind == "wait":
            return begun, []
        ask = {"here": (REQUESTS, flow_id), "there": (REQUESTS, argument)}.get(kind, (module_requests("outside"), flow_id))
        repeated = kind in ("here", "there")
        record = ModuleMessage(
            id=derived_id("ask", flow_id, step) if repeated else derived_id("ask", flow_id, step, attempt),
            type="counter.requested", source="mplp/flow", subject=ask[1], time=from_micros(0 if kind == "there" else time_us),
            correlation_id=flow_id, kind="request", source_module="flow", operation=kind, execution_id=flow_id, step_id=str(step),
            attempt=0 if kind == "there" else attempt, reply_to=flow_id, data={"amount": -1 if argument == "refuse" else step},
        )  # fmt: skip
        return begun, [Legit(record.id, ask[0], ask[1], record)]

    def evolve(self, event: Any) -> None:
        """See `Model.evolve`."""
        kind, time_us = event.type, to_micros(event.time)
        if kind == "command.refused":
            return
        if kind == "execution.started":
            self.flows[event.execution_id] = {
                "plan": list(event.data["plan"]), "step": 0, "attempt": 0, "since": 0, "told": 0, "answered": 0, "status": "running",
            }  # fmt: skip
            return
        flow = self.flows[event.execution_id]
        if kind in ("step.started", "step.retried"):
            flow["step"], flow["attempt"], flow["since"] = int(event.step_id), event.attempt, time_us
        elif kind in ("signal.received", "note.taken"):
            flow["told"] += event.data["amount"]
            if kind == "note.taken":
                self.notes.add(event.causation_id)
        elif kind == "step.completed":
            flow["answered"] += event.data["value"]
        else:
            flow["status"], flow["since"] = kind.removeprefix("execution."), time_us

    def essence(self, event: Any) -> Essence:
        """See `Model.essence`."""
        kind = event.type
        if kind in ("signal.received", "note.taken"):
            return kind, event.aggregate_id, 0, event.data["amount"]
        if kind == "step.completed":
            return kind, event.aggregate_id, int(event.step_id), event.data["value"]
        return kind, event.aggregate_id, int(event.step_id or 0), event.attempt

    def due(self, aggregate_id: str) -> int | None:
        """See `Model.due`."""
        flow = self.flows.get(aggregate_id)
        if not flow or flow["status"] != "running":
            return None
        kind, _, argument = flow["plan"][flow["step"] - 1].partition("/")
        wait_ms = {"wait": argument, "out": 2000, "there": 3000}.get(kind)
        return None if wait_ms is None else flow["since"] + int(wait_ms) * 1000

    def has_ended(self, aggregate_id: str) -> bool:
        """See `Model.has_ended`."""
        return bool(self.flows[aggregate_id]["status"] != "running")

    def shown(self) -> dict[str, Any]:
        """See `Model.shown`."""
        return {
            flow_id: (tuple(flow["plan"]), flow["step"], flow["attempt"], flow["since"], flow["told"], flow["answered"], flow["status"])
            for flow_id, flow in self.flows.items()
        }


class CounterModel:
    """Counters by home; with `resting` every second one stays, whether in memory or not."""

    def __init__(self, is_local: Callable[[str], bool], *, resting: bool = False) -> None:
        self._is_local = is_local
        self._resting = resting
        self.counters: dict[str, tuple[int, int]] = {}  #: total, time of the last addition
        self.answered: set[str] = set()

    def decide(self, record: Record | None, time_us: int, event: Any) -> tuple[list[Essence], list[Legit]]:
        """See `Model.decide`."""
        if record is None:
            return [("counter.faded", event.aggregate_id, None, None)], []
        assert isinstance(record, ModuleMessage)
        if record.id in self.answered:
            return [], []
        essence: Essence
        amount, aggregate = record.data["amount"], f"{record.subject}/counter"
        if amount > 0:
            total = self.counters.get(aggregate, (0, 0))[0] + amount
            essence = ("counter.added", aggregate, record.id, total)
        else:
            total, essence = 0, ("counter.refused", None, record.id, 0)
        response = ModuleMessage(
            id=derived_id("answer", record.id), type="counter.answered", source="mplp/counter", subject=record.subject,
            time=from_micros(time_us), correlation_id=record.correlation_id, causation_id=record.id, kind="response",
            source_module="counter", operation="add", execution_id=record.execution_id, step_id=record.step_id, attempt=record.attempt,
            reply_to=record.reply_to, status="success" if amount > 0 else "error", data={"value": total},
        )  # fmt: skip
        # Sent at once if the caller is elsewhere; and whenever the request comes again.
        return [essence], [Legit(response.id, RESPONSES, record.reply_to or "", response)]

    def evolve(self, event: Any) -> None:
        """See `Model.evolve`."""
        if event.type == "counter.faded":
            del self.counters[event.aggregate_id]
            return
        self.answered.add(event.data["request"])
        if event.type == "counter.added":
            self.counters[event.aggregate_id] = (event.data["value"], to_micros(event.time))

    def essence(self, event: Any) -> Essence:
        """See `Model.essence`."""
        return event.type, event.aggregate_id, event.data.get("request"), event.data.get("value")

    def due(self, aggregate_id: str) -> int | None:
        """See `Model.due`."""
        found = self.counters.get(aggregate_id)
        return None if found is None or self.stays(aggregate_id) else found[1] + 4_000_000

    def has_ended(self, aggregate_id: str) -> bool:
        """See `Model.has_ended`: a counter that is there has not, or stays."""
        return aggregate_id not in self.counters or self.stays(aggregate_id)

    def stays(self, aggregate_id: str) -> bool:
        """Whether a counter does not vanish: the sum of its name is even."""
        return self._resting and not sum(aggregate_id.encode()) & 1

    def shown(self) -> dict[str, Any]:
        """See `Model.shown`."""
        return dict(self.counters)


def description(record: Any) -> str:
    """A record's type and what it is about, for messages and comparison."""
    parts = [record.type, record.subject, f"at {to_micros(record.time)}"]
    for name in ("operation", "execution_id", "step_id", "attempt", "reply_to", "status"):
        if getattr(record, name, None) is not None:
            parts.append(f"{name}={getattr(record, name)}")
    return " ".join([*parts, str(record.data)])
