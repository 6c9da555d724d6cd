"""The ports in memory: for tests, and to describe the routes without a server (the generated reference)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from services.gateway.answers import json_bytes
from services.gateway.memory_keeping import MemoryKeeping
from services.gateway.memory_modules import MemoryModules
from services.gateway.memory_promote import MemoryPromotions
from services.gateway.memory_routes import MemoryLetters, MemoryRoutes
from services.gateway.ports import Item, LookBack, Ports, Rebuild, Start, Verification
from streams.bus.validate import parse_event
from streams.errors import InvalidInput, NotFound, Refused, Violation
from streams.records import Json, SystemEvent, WorkflowTransition, derived_id


@dataclass(frozen=True, slots=True)
class At:
    """A place in a topic."""

    topic: str
    partition: int
    offset: int


@dataclass
class MemoryExecutions:
    """Executions that a start brings to `running`; cancel is allowed once, nothing else is."""

    log: dict[str, list[WorkflowTransition]] = field(default_factory=dict)

    def record(self, execution_id: str, type: str, status: Any, data: Json = None, *, sequence: int | None = None) -> WorkflowTransition:
        """Appends a transition. `sequence` 0: a refusal that belongs to no execution."""
        story = self.log.setdefault(execution_id, [])
        transition = WorkflowTransition(
            type=type,
            execution_id=execution_id,
            workflow_id="w",
            status=status,
            sequence=len(story) + 1 if sequence is None else sequence,
            epoch=1,
            aggregate_id=execution_id,
            data=data or {},
        )
        story.append(transition)
        return transition

    async def start(self, start: Start, *, by: str, wait_s: float) -> dict[str, Any]:
        """See `ports.Executions`; what is waited for completes at once."""
        execution_id = start.execution_id or derived_id("execution", start.idempotency_key or len(self.log))
        if execution_id not in self.log:
            self.record(execution_id, "execution.started", "running", {"input": start.input, "by": by})
        if wait_s:
            self.record(execution_id, "execution.completed", "completed")
        return {"execution_id": execution_id, "status": self.log[execution_id][-1].status, "output": None}

    async def command(self, execution_id: str, command: str, data: Mapping[str, Any]) -> WorkflowTransition:
        """See `ports.Executions`."""
        if execution_id not in self.log:
            raise NotFound("execution.unknown", f"There is no execution {execution_id}.")
        if command != "cancel" or self.log[execution_id][-1].status == "cancelled":
            raise Refused("execution.wrong-state", "Not now.")
        return self.record(execution_id, "execution.cancelled", "cancelled", dict(data))

    async def transitions(
        self, execution_id: str, *, follow: bool = False, until: datetime | None = None, sequence: int | None = None
    ) -> AsyncIterator[WorkflowTransition]:
        """See `ports.Executions`."""
        for transition in self.log.get(execution_id, []):
            if (until is None or transition.time <= until) and (sequence is None or (transition.sequence or 0) <= sequence):
                yield transition


@dataclass
class MemoryLive:
    """Follows a list that is given; afterwards waits for ever."""

    items: list[Item] = field(default_factory=list)
    closed: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    looked: list[LookBack] = field(default_factory=list)

    async def follow(
        self, topic: str, *, since: str, where: str | None, type: str | None, source: str | None
    ) -> AsyncGenerator[Item, None]:
        """See `ports.Live`."""
        self.asked.append({"topic": topic, "since": since, "where": where, "type": type, "source": source})
        if not topic.startswith("mplp."):
            raise NotFound("topic.unknown", f"There is no topic {topic}.")
        return self._items()

    async def page(self, asked: LookBack) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        """See `ports.Live`; pages of the same list, whatever is asked for."""
        self.looked.append(asked)
        begin = int(asked.after or 0)
        end = begin + asked.limit
        return [item.record for item in self.items[begin:end]], str(end) if end < len(self.items) else None

    async def _items(self) -> AsyncGenerator[Item, None]:
        try:
            for item in self.items:
                yield item
        finally:
            self.closed += 1


class MemoryRows:
    """Rows in batches of `size`; the batch number `fails_after` raises instead."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], size: int, fails_after: int | None = None) -> None:
        self.columns = tuple(rows[0]) if rows else ()
        self._rows, self._size, self._fails_after = rows, size, fails_after
        self.closed = False

    async def batches(self) -> AsyncIterator[list[Mapping[str, Any]]]:
        """See `ports.Rows`."""
        for number, first in enumerate(range(0, len(self._rows), self._size)):
            if number == self._fails_after:
                raise InvalidInput("query.failed", "It broke in the middle.")
            yield list(self._rows[first : first + self._size])

    async def close(self) -> None:
        """See `ports.Rows`."""
        self.closed = True


class MemoryStreamed:
    """The same as bytes."""

    def __init__(self, given: MemoryRows, format: str, query_id: str) -> None:
        self.query_id, self.rows = query_id, 0
        self._given, self._format = given, format

    async def chunks(self) -> AsyncIterator[bytes]:
        """See `ports.Streamed`."""
        array, separator = self._format == "json", b""
        if array:
            yield b"["
        async for batch in self._given.batches():
            self.rows += len(batch)
            yield separator + (b",\n" if array else b"\n").join(map(json_bytes, batch))
            separator = b",\n" if array else b"\n"
        if array:
            yield b"]"

    async def close(self) -> None:
        """See `ports.Streamed`."""
        await self._given.close()


@dataclass
class MemoryHistory:
    """Answers every query with what `answer` gives; remembers what was asked."""

    answer: Callable[[str, Mapping[str, Any]], MemoryRows] = lambda sql, parameters: MemoryRows([], 1)
    lag: int | None = 0
    asked: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    given: list[MemoryRows] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)  #: saved queries

    async def query(self, sql: str, parameters: Mapping[str, Any]) -> MemoryRows:
        """See `ports.History`."""
        self.asked.append((sql, parameters))
        self.given.append(self.answer(sql, parameters))
        return self.given[-1]

    async def stream(self, sql: str, parameters: Mapping[str, Any], *, format: str, query_id: str | None) -> MemoryStreamed:
        """See `ports.History`; json is an array, everything else lines."""
        return MemoryStreamed(await self.query(sql, parameters), format, query_id or "0" * 32)

    async def progress(self, query_id: str) -> dict[str, Any]:
        """See `ports.History`."""
        raise NotFound("query.unknown", f"There is no query {query_id}.")

    async def cancel(self, query_id: str) -> dict[str, Any]:
        """See `ports.History`."""
        return await self.progress(query_id)

    def all_saved(self) -> Sequence[dict[str, Any]]:
        """See `ports.History`."""
        return [{"name": name} for name in sorted(self.texts)]

    def show_saved(self, name: str) -> dict[str, Any]:
        """See `ports.History`."""
        return {"name": name, "sql": self.saved(name, {})[0]}

    def saved(self, name: str, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """See `ports.History`."""
        if name not in self.texts:
            raise NotFound("query.unsaved", f"There is no saved query {name}.")
        return self.texts[name], dict(parameters)

    async def columns(self, sql: str, parameters: Mapping[str, Any]) -> bytes:
        """See `ports.History`."""
        rows = [row async for batch in (await self.query(sql, parameters)).batches() for row in batch]
        return orjson.dumps({name: [row[name] for row in rows] for name in (rows[0] if rows else ())})

    async def caught_up(self, timeout: float) -> int | None:
        """See `ports.History`."""
        self.lag = 0 if self.lag is not None else None
        return self.lag

    def behind(self) -> int | None:
        """See `ports.History`."""
        return self.lag


@dataclass
class MemoryUpkeep:
    """Work of `steps` steps, then a report; or then `failure`. Remembers what was asked, and whether it was given up."""

    steps: int = 1
    failure: Exception | None = None
    asked: list[Any] = field(default_factory=list)
    closed: int = 0

    def verify(self, asked: Verification) -> AsyncGenerator[Mapping[str, Any], None]:
        """See `ports.Upkeep`."""
        return self._work(asked, {"verdict": "exact", "exact": True, "quick": asked.quick})

    def rebuild(self, asked: Rebuild) -> AsyncGenerator[Mapping[str, Any], None]:
        """See `ports.Upkeep`."""
        return self._work(asked, {"tables": ["system_events"], "topics": list(asked.topics), "kept": []})

    async def _work(self, asked: Any, report: Mapping[str, Any]) -> AsyncGenerator[Mapping[str, Any], None]:
        self.asked.append(asked)
        try:
            for number in range(self.steps):
                yield {"progress": {"phase": "topics", "topic": "mplp.system.events", "done": number, "of": self.steps}}
            if self.failure is not None:
                raise self.failure
            yield {"report": report}
        finally:
            self.closed += 1


@dataclass
class MemoryRules:
    """Rules in a dictionary; a rule needs an id and nothing else."""

    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    versions: dict[str, Sequence[dict[str, Any]]] = field(default_factory=dict)

    async def list(self) -> list[dict[str, Any]]:
        """See the ports."""
        return [self.stored[rule_id] for rule_id in sorted(self.stored)]

    async def show(self, rule_id: str, version: int | None) -> dict[str, Any]:
        """See `ports.Rules`."""
        if version is not None:
            found = await self.history(rule_id)
            if version > len(found):
                raise NotFound("rule.version-unknown", f"There is no version {version} of {rule_id}.")
            return found[version - 1]
        if rule_id not in self.stored:
            raise NotFound("rule.unknown", f"There is no rule {rule_id}.")
        return self.stored[rule_id]

    async def history(self, rule_id: str) -> Sequence[dict[str, Any]]:
        """See `ports.Rules`."""
        if rule_id not in self.versions:
            raise NotFound("rule.unknown", f"There never was a rule {rule_id}.")
        return self.versions[rule_id]

    async def explain(self, rule_id: str, group: Mapping[str, str]) -> dict[str, Any]:
        """See `ports.Rules`."""
        await self.show(rule_id, None)
        return {"rule_id": rule_id, "group": dict(group)}

    async def plan(self, documents: Sequence[Json]) -> dict[str, Any]:
        """See `ports.Rules`."""
        return {"rules": [{"id": document["id"], "version": len(self.versions.get(document["id"], ())) + 1} for document in documents]}

    async def apply(self, documents: Sequence[Json], *, who: str, why: str) -> dict[str, Any]:
        """See `ports.Rules`."""
        for document in documents:
            if not isinstance(document.get("id"), str):
                raise InvalidInput("rule.invalid", "A rule needs an id.", pointer="/id")
            self.stored[document["id"]] = document
            before = self.versions.get(document["id"], ())
            self.versions[document["id"]] = [*before, {"version": len(before) + 1, "who": who, "rule": document}]
            self.changes.append((document["id"], who, why))
        return {"applied": [document["id"] for document in documents], "missing": []}

    async def delete(self, rule_id: str, *, who: str, why: str) -> dict[str, Any]:
        """See `ports.Rules`."""
        if rule_id not in self.stored:
            raise NotFound("rule.unknown", f"There is no rule {rule_id}.")
        del self.stored[rule_id]
        self.changes.append((rule_id, who, why))
        return {"deleted": rule_id}


@dataclass
class MemoryWorkflows:
    """Published definitions in a dictionary."""

    stored: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def list(self) -> list[dict[str, Any]]:
        """See the ports."""
        return [self.stored[workflow_id] for workflow_id in sorted(self.stored)]

    async def show(self, workflow_id: str) -> dict[str, Any]:
        """See `ports.Workflows`."""
        if workflow_id not in self.stored:
            raise NotFound("workflow.unknown", f"There is no workflow {workflow_id}.")
        return self.stored[workflow_id]

    async def apply(self, documents: Sequence[Json], *, who: str, why: str) -> Sequence[dict[str, Any]]:
        """See `ports.Workflows`."""
        for document in documents:
            self.stored[document["id"]] = {"id": document["id"], "who": who, "why": why, "definition": document}
        return [{"id": document["id"], "missing": []} for document in documents]

    async def delete(self, workflow_id: str, *, who: str, why: str) -> dict[str, Any]:
        """See `ports.Workflows`."""
        await self.show(workflow_id)
        del self.stored[workflow_id]
        return {"id": workflow_id, "missing": []}


@dataclass
class Memory:
    """Everything behind the gateway."""

    executions: MemoryExecutions = field(default_factory=MemoryExecutions)
    live: MemoryLive = field(default_factory=MemoryLive)
    history: MemoryHistory = field(default_factory=MemoryHistory)
    upkeep: MemoryUpkeep = field(default_factory=MemoryUpkeep)
    keeping: MemoryKeeping = field(default_factory=MemoryKeeping)
    promotions: MemoryPromotions = field(default_factory=MemoryPromotions)
    rules: MemoryRules = field(default_factory=MemoryRules)
    workflows: MemoryWorkflows = field(default_factory=MemoryWorkflows)
    routes: MemoryRoutes = field(default_factory=MemoryRoutes)
    letters: MemoryLetters = field(default_factory=MemoryLetters)
    published: list[SystemEvent] = field(default_factory=list)
    checks: dict[str, Any] = field(default_factory=dict)

    async def publish(self, events: Iterable[SystemEvent]) -> list[At]:
        """See `ports.Ports`."""
        first = len(self.published)
        self.published.extend(events)
        return [At("mplp.system.events", 0, offset) for offset in range(first, len(self.published))]

    def validate(self, definition: Json) -> list[Violation]:
        """A definition has steps."""
        given = definition.get("workflow", definition)
        if not isinstance(given, dict) or not isinstance(given.get("steps"), list):
            return [Violation(code="definition.no-steps", pointer="/steps", message="A workflow has steps.")]
        return []

    def fold(self, transitions: Iterable[WorkflowTransition]) -> dict[str, Any]:
        """The last status; nothing of what has not begun."""
        story = [transition for transition in transitions if transition.sequence]
        if not story:
            return {}
        return {"execution_id": story[0].execution_id, "status": story[-1].status, "steps": []}

    def ports(self) -> Ports:
        """All of it."""
        return Ports(
            executions=self.executions,
            live=self.live,
            history=self.history,
            upkeep=self.upkeep,
            keeping=self.keeping,
            promotions=self.promotions,
            rules=self.rules,
            routes=self.routes,
            letters=self.letters,
            workflows=self.workflows,
            modules=MemoryModules(),
            publish=self.publish,
            parse_event=parse_event,
            validate=self.validate,
            fold=self.fold,
            checks=self.checks,
        )
