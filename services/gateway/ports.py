"""What the gateway needs of the rest of the product: callables and small protocols, wired in `services.processes.gateway`.

Tests give in-memory ones. Every method raises `BackboneError` and nothing else for what may go wrong in operation.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from fastapi import APIRouter

from services.gateway.ports_keeping import Keeping
from services.gateway.ports_promote import Promotions
from services.gateway.ports_routes import Letters, Routes
from streams.errors import Violation
from streams.records import Json, SystemEvent, WorkflowTransition


class Placed(Protocol):
    """Where a published record lies."""

    @property
    def topic(self) -> str:
        """Logical topic."""

    @property
    def partition(self) -> int:
        """Partition."""

    @property
    def offset(self) -> int:
        """Offset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What to start: a definition, or the stored one with the id `workflow`."""

    definition: Json = None
    workflow: str | None = None
    input: Json = None
    execution_id: str | None = None
    idempotency_key: str | None = None


class Executions(Protocol):
    """Workflow executions: commands go in, transitions come out."""

    async def start(self, start: Start, *, by: str, wait_s: float) -> dict[str, Any]:
        """Starts an execution, and waits for its end for at most `wait_s` seconds (0: only until it has started).

        Gives `execution_id`, `status` and, at the end, `output`, `error`, `duration_ms`. A repeat gives those of the first.
        """

    async def command(self, execution_id: str, command: str, data: Mapping[str, Any]) -> WorkflowTransition:
        """Sends a command; the last transition of what was decided, of a fork that of the new execution.

        Raises `Refused` with the code of `command.refused`.
        """

    def transitions(
        self, execution_id: str, *, follow: bool = False, until: datetime | None = None, sequence: int | None = None
    ) -> AsyncIterator[WorkflowTransition]:
        """The transitions of an execution in order, from the log; with `follow` goes on with those to come.

        `until` and `sequence` say where to stop, inclusive.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One record of a live stream: its id (`topic/partition/offset`) and the record as JSON people get."""

    id: str
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LookBack:
    """Which records are asked for, and from where on. None: no condition."""

    topics: tuple[str, ...] = ()  #: logical names; empty: all topics of events
    type: str | None = None  #: glob
    source: str | None = None  #: glob
    subject: str | None = None
    correlation_id: str | None = None
    since: datetime | None = None  #: inclusive; the record's time, as `until`
    until: datetime | None = None  #: exclusive
    where: str | None = None  #: CEL
    limit: int = 100
    after: str | None = None  #: where the page before ended


class Live(Protocol):
    """Live streams, and pages of what has been."""

    async def page(self, asked: LookBack) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        """Records that match, oldest first, read from the topics; and what to give as `after` for those behind them (None: there are none).

        Raises `InvalidInput` (`cursor.invalid`, `expression.invalid`), `NotFound` (`topic.unknown`).
        """

    async def follow(
        self, topic: str, *, since: str, where: str | None, type: str | None, source: str | None
    ) -> AsyncGenerator[Item, None]:
        """Opens the records of a logical topic from `since` (now, beginning or RFC 3339) on, without end.

        Raises `NotFound` (`topic.unknown`) before there is anything to read; closing the iterator closes its connection.
        """


class Rows(Protocol):
    """An answer of the history: the names of its columns, and its rows by the batch."""

    @property
    def columns(self) -> Sequence[str]:
        """Names of the columns."""

    def batches(self) -> AsyncIterator[list[Mapping[str, Any]]]:
        """The rows, as objects, in batches."""

    async def close(self) -> None:
        """Gives the query up, also in the middle."""


class Streamed(Protocol):
    """An answer that comes bit by bit."""

    @property
    def query_id(self) -> str:
        """By it the query can be watched and ended."""

    @property
    def rows(self) -> int:
        """Rows so far, 0 where they cannot be counted."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of its form, none of them empty. Raises as `History.query`, also in the middle."""

    async def close(self) -> None:
        """Gives the query up, also in the middle."""


class History(Protocol):
    """SQL over what was."""

    async def stream(self, sql: str, parameters: Mapping[str, Any], *, format: str, query_id: str | None) -> Streamed:
        """Runs one read-only statement; the answer comes as json, jsonl, csv, compact, arrow or parquet. Raises as `query`."""

    async def progress(self, query_id: str) -> dict[str, Any]:
        """How far a query is. Raises `NotFound` (`query.unknown`)."""

    async def cancel(self, query_id: str) -> dict[str, Any]:
        """Ends a query. Raises `NotFound` (`query.unknown`)."""

    def all_saved(self) -> Sequence[dict[str, Any]]:
        """The saved queries, ordered by name."""

    def show_saved(self, name: str) -> dict[str, Any]:
        """One of them with its text. Raises `NotFound` (`query.unsaved`)."""

    def saved(self, name: str, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Text and parameters of a saved query, defaults filled in.

        Raises `NotFound` (`query.unsaved`), `InvalidInput` (`sql.parameter`, `query.invalid`).
        """

    async def query(self, sql: str, parameters: Mapping[str, Any]) -> Rows:
        """Runs one read-only statement. Raises `InvalidInput`, `Denied` (`query.refused`), `Unavailable` (`history.unavailable`)."""

    async def columns(self, sql: str, parameters: Mapping[str, Any]) -> bytes:
        """As `query`: the whole answer as JSON text, an object with an array for each column."""

    async def caught_up(self, timeout: float) -> int | None:
        """Waits until the sink has reached the end offsets of now, at most `timeout` seconds; records that it is behind,
        None if that is not known."""

    def behind(self) -> int | None:
        """Records that the sink is behind, as last seen; None if that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Which part of the history is compared with the topics, and how."""

    topics: tuple[str, ...] = ()  #: logical names; empty: all
    since: int | datetime | None = None  #: offset or Kafka's time
    until: int | datetime | None = None  #: exclusive
    quick: bool = False
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """Which topics' rows are made anew."""

    topics: tuple[str, ...] = ()  #: logical names; empty: all
    keep: bool = False  #: the old tables stay, under other names
    timeout_s: float = 60.0
    who: str = ""
    why: str = ""


class Upkeep(Protocol):
    """Looking after the history. What takes long comes in steps: `{"progress": …}` now and then, at the end one `{"report": …}`."""

    def verify(self, asked: Verification) -> AsyncGenerator[Mapping[str, Any], None]:
        """Compares topics and tables. Raises `NotFound` (`topic.not-kept`), `Unavailable`, `Refused`."""

    def rebuild(self, asked: Rebuild) -> AsyncGenerator[Mapping[str, Any], None]:
        """Makes tables anew from the topics. Raises `NotFound` (`topic.not-kept`), `Refused` (`history.busy`), `Unavailable`."""


class Rules(Protocol):
    """Correlation rules in the control topic."""

    async def list(self) -> list[dict[str, Any]]:
        """All rules, ordered by id."""

    async def show(self, rule_id: str, version: int | None) -> dict[str, Any]:
        """The rule in force, or a version of it. Raises `NotFound` (`rule.unknown`, `rule.version-unknown`)."""

    async def history(self, rule_id: str) -> Sequence[dict[str, Any]]:
        """Every version of a rule, oldest first. Raises `NotFound` (`rule.unknown`)."""

    async def explain(self, rule_id: str, group: Mapping[str, str]) -> dict[str, Any]:
        """How a group stands (empty: the groups used last). Raises `NotFound` (`rule.unknown`), `InvalidInput` (`group.invalid`)."""

    async def plan(self, documents: Sequence[Json]) -> dict[str, Any]:
        """What `apply` would change. Raises `InvalidDocument`."""

    async def apply(self, documents: Sequence[Json], *, who: str, why: str) -> dict[str, Any]:
        """Stores rules and waits until the workers use them; the report says which do not. Raises `InvalidDocument`."""

    async def delete(self, rule_id: str, *, who: str, why: str) -> dict[str, Any]:
        """Deletes a rule. Raises `NotFound` (`rule.unknown`)."""


class Workflows(Protocol):
    """Published workflow definitions in the control topic."""

    async def list(self) -> list[dict[str, Any]]:
        """The newest definition of each id, ordered by id, with its `triggers` and their next times."""

    async def show(self, workflow_id: str) -> dict[str, Any]:
        """One of them. Raises `NotFound` (`workflow.unknown`)."""

    async def apply(self, documents: Sequence[Json], *, who: str, why: str) -> Sequence[dict[str, Any]]:
        """Publishes definitions that have no faults, and waits until the cores have them."""

    async def delete(self, workflow_id: str, *, who: str, why: str) -> dict[str, Any]:
        """Takes one back. Raises `NotFound` (`workflow.unknown`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleFigures:
    """How a module is that runs elsewhere."""

    serving: bool
    processes: int
    running: int  #: requests that its processes work on, as they told with their leases


class Modules(Protocol):
    """Modules and their operations."""

    async def list(self) -> list[dict[str, Any]]:
        """Modules with the names of their operations and how they are, ordered by name."""

    async def show(self, module: str) -> dict[str, Any]:
        """A module with its operations, their schemas, and its processes. Raises `NotFound` (`module.unknown`)."""

    async def figures(self) -> Mapping[str, ModuleFigures]:
        """How the modules are that run elsewhere, by name: what was known not long ago; it never takes long."""

    async def call(self, module: str, operation: str, parameters: Mapping[str, Any], *, home: str | None, timeout: float) -> Json:
        """The operation's result. Raises `NotFound`, `Refused` and what the module answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What a readiness check saw."""

    ok: bool
    detail: str = ""
    figures: Mapping[str, int] = field(default_factory=dict)  #: what it counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything that the gateway is given."""

    executions: Executions
    live: Live
    history: History
    upkeep: Upkeep
    keeping: Keeping
    promotions: Promotions
    rules: Rules
    workflows: Workflows
    modules: Modules
    routes: Routes
    letters: Letters
    publish: Callable[[Iterable[SystemEvent]], Awaitable[Sequence[Placed]]]
    parse_event: Callable[[bytes | dict[str, Any]], SystemEvent]  #: raises `InvalidInput` with code and pointer
    validate: Callable[[Json], Sequence[Violation]]  #: all faults of a workflow definition
    fold: Callable[[Iterable[WorkflowTransition]], dict[str, Any]]  #: an execution as JSON; empty if none has begun
    checks: Mapping[str, Callable[[], Awaitable[Check]]] = field(default_factory=dict)
    rule_figures: Callable[[], Mapping[str, Mapping[str, Any]]] = dict  #: rule → what happened to its records (`Tally.to_dict`)
    route_lags: Callable[[], Mapping[str, Mapping[str, Any]]] = dict  #: route → how far it is behind (`Lag.to_dict`)
    registry: APIRouter | None = None  #: the schema registry's routes, at the root
