"""The gateway's ports over the real things: the bus, the history and its sink, the rules, the modules, the heartbeats."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog

from services.gateway import registry
from services.gateway.ports import Check, Ports, Start
from services.history.answers import Format as QueryFormat
from services.history.queries import Answer as QueryAnswer
from services.history.query import QueryResult
from services.history.saved import SavedQueries
from services.history.sink import Sink
from services.history.store import History
from services.orchestrator import definitions, view
from services.orchestrator.store import AnyModule
from services.processes.gateway_history import HistoryUpkeep, Pausable
from services.processes.gateway_keeping import HistoryKeeping
from services.processes.gateway_lags import RouteLags
from services.processes.gateway_live import BusLive
from services.processes.gateway_modules import BusModules
from services.processes.gateway_promote import HistoryPromotions
from services.processes.gateway_routes import BusLetters, ControlRoutes
from services.processes.runtime import ENDED
from streams import topics
from streams.bus.bus import Bus
from streams.bus.validate import parse_event
from streams.concurrency import side_by_side
from streams.correlation import control
from streams.correlation.explaining import explain
from streams.correlation.rule_changes import Stored
from streams.correlation.rule_figures import Reported, is_figures
from streams.correlation.tallies import Tally
from streams.errors import Unavailable
from streams.log.figures import in_sum
from streams.operations import CONTRACT
from streams.records import Heartbeat, Json, SystemEvent, WorkflowTransition
from streams.topics import COMMANDS, WORKERS

#: A process that was silent for longer does not live.
HEARTBEAT_AGE_S = 5.0
#: Seconds that an orchestrator may take to answer a command.
COMMAND_TIMEOUT_S = 30.0
RETRY_S = 1.0

_log = structlog.get_logger("gateway")


class BusExecutions:
    """`ports.Executions` over the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def start(self, start: Start, *, by: str, wait_s: float) -> dict[str, Any]:
        """See `ports.Executions`."""
        latest: WorkflowTransition | None = None

        def saw(transition: WorkflowTransition) -> None:
            nonlocal latest
            latest = transition

        what = start.workflow if start.workflow is not None else start.definition
        running = self._bus.run_workflow(
            what,
            start.input,
            wait=wait_s > 0,
            execution_id=start.execution_id,
            idempotency_key=start.idempotency_key,
            by=by,
            timeout=COMMAND_TIMEOUT_S,
            on_transition=saw,
        )
        try:
            async with asyncio.timeout(wait_s or None):
                return await running
        except TimeoutError:
            if latest is None:
                raise Unavailable("orchestrator.silent", f"The orchestrator did not start it within {wait_s:g} s.") from None
            return {"execution_id": latest.execution_id, "status": latest.status}

    async def command(self, execution_id: str, command: str, data: Mapping[str, Any]) -> WorkflowTransition:
        """See `ports.Executions`."""
        return await self._bus.command(execution_id, command, dict(data), timeout=COMMAND_TIMEOUT_S)

    def transitions(
        self, execution_id: str, *, follow: bool = False, until: datetime | None = None, sequence: int | None = None
    ) -> AsyncIterator[WorkflowTransition]:
        """See `ports.Executions`."""
        return self._bus.transitions(execution_id, follow=follow, until=until, sequence=sequence)


class SunkHistory:
    """`ports.History` over the store and its sink. It opens by itself as soon as ClickHouse answers, and lives on when that goes away."""

    def __init__(self, store: History, sink: Sink) -> None:
        self._store, self._sink = store, sink
        self._sinking = Pausable(sink.run)
        self._saved = SavedQueries(store.settings.queries_dir)
        self._keepings: list[HistoryKeeping] = []
        self._fault: str | None = "It is opening."  #: why there is no answer; None: it is open

    async def run(self) -> None:
        """Opens the history, then sinks until cancelled. Raises `Refused` (`history.locked`) when another process has the folder."""
        while self._fault is not None:
            try:
                await self._store.open()
                self._fault = None
            except Unavailable as error:
                self._fault = error.message
                _log.warning("history.waiting", code=error.code, message=error.message)
                await asyncio.sleep(RETRY_S)
        await side_by_side(self._sinking.run(), *(keeping.run() for keeping in self._keepings))

    async def query(self, sql: str, parameters: Mapping[str, Any]) -> QueryResult:
        """See `ports.History`."""
        self._check_open()
        return await self._store.query(sql, parameters)

    async def stream(self, sql: str, parameters: Mapping[str, Any], *, format: str, query_id: str | None) -> QueryAnswer:
        """See `ports.History`."""
        self._check_open()
        return await self._store.stream(sql, parameters, format=QueryFormat(format), query_id=query_id)

    async def progress(self, query_id: str) -> dict[str, Any]:
        """See `ports.History`."""
        return await self._store.queries.progress(query_id)

    async def cancel(self, query_id: str) -> dict[str, Any]:
        """See `ports.History`."""
        return await self._store.queries.cancel(query_id)

    def all_saved(self) -> Sequence[dict[str, Any]]:
        """See `ports.History`."""
        return self._saved.all()

    def show_saved(self, name: str) -> dict[str, Any]:
        """See `ports.History`."""
        return self._saved.find(name).to_dict()

    def saved(self, name: str, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """See `ports.History`."""
        return self._saved.find(name).filled(parameters)

    async def columns(self, sql: str, parameters: Mapping[str, Any]) -> bytes:
        """See `ports.History`."""
        self._check_open()
        return await self._store.columns(sql, parameters)

    async def caught_up(self, timeout: float) -> int | None:
        """See `ports.History`."""
        self._check_open()
        return await self._sink.wait_until(None, timeout)

    def behind(self) -> int | None:
        """See `ports.History`."""
        return self._sink.behind()

    async def check(self) -> Check:
        """Whether the history is open and the sink runs."""
        if self._fault is not None:
            return Check(ok=False, detail=self._fault)
        status = self._sink.status()
        return Check(ok=status.state == "running", detail=f"sink {status.state}, {status.behind} records behind {status.detail}".strip())

    def promotions(self, bus: Bus, busy: asyncio.Lock) -> HistoryPromotions:
        """Columns made of payloads."""
        return HistoryPromotions(bus, self._store, busy, self._check_open)

    def upkeep(self, bus: Bus) -> HistoryUpkeep:
        """What looks after it."""
        return HistoryUpkeep(bus, self._store, self._sink, self._sinking, self._check_open)

    def keeping(self, bus: Bus, busy: asyncio.Lock) -> HistoryKeeping:
        """What keeps it; it works as long as the history runs."""
        keeping = HistoryKeeping(bus, self._store, self._sink, busy, self._check_open)
        self._keepings.append(keeping)
        return keeping

    def _check_open(self) -> None:
        if self._fault is not None:
            raise Unavailable("history.unavailable", f"The history is not there: {self._fault}")


class ControlRules:
    """`ports.Rules` over the control topic."""

    def __init__(self, bus: Bus, tallies: Callable[[], Mapping[str, Tally]]) -> None:
        self._bus = bus
        self._tallies = tallies

    async def list(self) -> list[dict[str, Any]]:
        """See `ports.Rules`."""
        stored = sorted(await control.list_rules(self._bus), key=lambda rule: rule.record.id)
        return [rule_json(rule) for rule in stored]

    async def show(self, rule_id: str, version: int | None) -> dict[str, Any]:
        """See `ports.Rules`."""
        if version is None:
            tally = self._tallies().get(rule_id)
            return {**rule_json(await control.show(self._bus, rule_id)), "figures": None if tally is None else tally.to_dict()}
        return (await control.version(self._bus, rule_id, version)).to_dict()

    async def history(self, rule_id: str) -> Sequence[dict[str, Any]]:
        """See `ports.Rules`."""
        return [version.to_dict() for version in await control.history(self._bus, rule_id)]

    async def explain(self, rule_id: str, group: Mapping[str, str]) -> dict[str, Any]:
        """See `ports.Rules`."""
        return (await explain(self._bus, rule_id, group)).to_dict()

    async def plan(self, documents: Sequence[Json]) -> dict[str, Any]:
        """See `ports.Rules`."""
        return {"rules": [change.to_dict() for change in await control.plan(self._bus, documents)]}

    async def apply(self, documents: Sequence[Json], *, who: str, why: str) -> dict[str, Any]:
        """See `ports.Rules`."""
        return (await control.apply(self._bus, documents, who, why)).to_dict()

    async def delete(self, rule_id: str, *, who: str, why: str) -> dict[str, Any]:
        """See `ports.Rules`."""
        return (await control.delete(self._bus, rule_id, who, why)).to_dict()


def rule_json(stored: Stored) -> dict[str, Any]:
    """A rule with its version, and who applied it, when and why."""
    record = stored.record
    about = {"id": record.id, "version": record.version, "who": record.who, "why": record.why, "time": record.time}
    return {**about, "rule": stored.document}


class BusWorkflows:
    """`ports.Workflows` over the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def list(self) -> list[dict[str, Any]]:
        """See `ports.Workflows`."""
        stored = await self._bus.workflows()
        return await asyncio.to_thread(lambda: [each.to_dict() for each in stored])  # next times of schedules take theirs

    async def show(self, workflow_id: str) -> dict[str, Any]:
        """See `ports.Workflows`."""
        return (await self._bus.workflow(workflow_id)).to_dict()

    async def apply(self, documents: Sequence[Json], *, who: str, why: str) -> Sequence[dict[str, Any]]:
        """See `ports.Workflows`."""
        return [applied.to_dict() for applied in await self._bus.apply_workflow(documents, by=who, why=why)]

    async def delete(self, workflow_id: str, *, who: str, why: str) -> dict[str, Any]:
        """See `ports.Workflows`."""
        return (await self._bus.delete_workflow(workflow_id, by=who, why=why)).to_dict()


class Pulse:
    """Who lives: the heartbeats of the other processes."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._seen: dict[str, tuple[float, Heartbeat]] = {}
        self._reported = Reported()

    async def run(self) -> None:
        """Follows the heartbeats until cancelled; begins again when Kafka was away."""
        while True:
            try:
                async for record in self._bus.subscribe(WORKERS, since="now"):
                    if isinstance(record, Heartbeat) and is_figures(record):
                        self._reported.take(record)
                    elif isinstance(record, Heartbeat) and record.type == ENDED:
                        self._seen.pop(record.process, None)
                    elif isinstance(record, Heartbeat):
                        self._seen[record.process] = (time.monotonic(), record)
            except Unavailable as error:
                _log.warning("pulse.waiting", code=error.code)
            await asyncio.sleep(RETRY_S)

    def tallies(self) -> Mapping[str, Tally]:
        """Rule → what happened to its records, over all workers."""
        return self._reported.tallies(time.time())

    def living(self, kind: str) -> list[Heartbeat]:
        """The last heartbeats of the living processes whose name begins with `kind` and a hyphen."""
        alive_since = time.monotonic() - HEARTBEAT_AGE_S
        return [beat for name, (at, beat) in sorted(self._seen.items()) if name.startswith(f"{kind}-") and at >= alive_since]

    async def check_worker(self) -> Check:
        """Whether a worker lives."""
        living = self.living("worker")
        return Check(ok=bool(living), detail=", ".join(beat.process for beat in living) or "no worker sends heartbeats")

    async def check_core(self) -> Check:
        """Whether every partition has a living core that owns it."""
        living = self.living("core")
        physical = self._bus.kafka.names.physical(COMMANDS)
        owned = {partition for beat in living for partition in beat.partitions}
        wanted = {f"{physical}/{partition}" for partition in range(await self._bus.publisher.partitions(COMMANDS))}
        missing = sorted(int(partition.rpartition("/")[2]) for partition in wanted - owned)
        if missing:
            return Check(ok=False, detail=f"no core owns the partitions {', '.join(map(str, missing))}")
        figures = in_sum(beat.data for beat in living if isinstance(beat.data, dict))
        return Check(ok=True, detail=", ".join(beat.process for beat in living), figures=figures)


async def check_kafka(bus: Bus) -> Check:
    """Whether Kafka answers and our topics are there."""
    async with bus.kafka.admin() as admin:
        present = set(await admin.list_topics())
    missing = [topic.name for topic in topics.CATALOGUE if bus.kafka.names.physical(topic.name) not in present]
    return Check(ok=not missing, detail=f"topics are missing: {', '.join(missing)}" if missing else bus.kafka.settings.bootstrap_servers())


def ports_over(bus: Bus, history: SunkHistory, pulse: Pulse, lags: RouteLags) -> Ports:
    """All of the gateway's ports."""

    async def publish(events: Iterable[SystemEvent]) -> Sequence[Any]:
        return await bus.publish(events)

    async def kafka() -> Check:
        return await check_kafka(bus)

    upkeep = history.upkeep(bus)
    return Ports(
        executions=BusExecutions(bus),
        live=BusLive(bus),
        history=history,
        upkeep=upkeep,
        keeping=history.keeping(bus, upkeep.busy),
        promotions=history.promotions(bus, upkeep.busy),
        rules=ControlRules(bus, pulse.tallies),
        workflows=BusWorkflows(bus),
        modules=BusModules(bus),
        routes=ControlRoutes(bus, lags),
        letters=BusLetters(bus),
        publish=publish,
        parse_event=parse_event,
        rule_figures=lambda: {rule_id: tally.to_dict() for rule_id, tally in pulse.tallies().items()},
        route_lags=lambda: {route_id: lag.to_dict() for route_id, lag in lags.latest().items()},
        validate=lambda definition: definitions.validate(definition, AnyModule(CONTRACT)),
        fold=view.fold,
        checks={"kafka": kafka, "core": pulse.check_core, "worker": pulse.check_worker, "history": history.check},
        registry=registry.router(bus.kafka),
    )
