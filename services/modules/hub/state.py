"""State and events of the hub: its registry, operations over several modules, broadcasts. Times are microseconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from services.modules.lifecycle import Lifecycle
from services.modules.operation import Caller
from streams.records import Json, MessageError

#: Home of everything that belongs to the hub, and its registry: there is one.
HOME = "hub"
REGISTRY = f"{HOME}/registry"
NAME = "hub"

# --- registry -----------------------------------------------------------------------------------------------------------

#: What a module was told to do.
Wish: TypeAlias = Literal["serving", "draining", "stopped"]

WISHES: Mapping[Wish, tuple[Wish, ...]] = {
    "serving": ("draining", "stopped"),
    "draining": ("serving", "stopped"),
    "stopped": ("serving",),
}
LIFECYCLE = Lifecycle(noun="module", initial=("serving",), table=WISHES)

MODULES_MAX = 1000
SUBSCRIBERS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A process of a module. It counts as long as its lease lasts; null: for ever."""

    instance: str
    lease_us: int | None
    detail: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A module that runs elsewhere."""

    module: str
    description: str
    operations: Mapping[str, Json]  #: name → description and JSON Schemas of parameters and result
    wish: Wish
    registered_us: int
    instances: Mapping[str, Instance] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Who wants messages of which types.

    `is_module`: they go to its inbox, which its processes share; else to the subscriber's own address.
    """

    subscriber: str
    types: tuple[str, ...]  #: globs
    source: str | None  #: glob of who sends; null: anybody
    is_module: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Which modules and subscribers there are."""

    modules: Mapping[str, Registration] = field(default_factory=dict)
    subscribers: Mapping[str, Subscription] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRegistered:
    """A process says what its module offers."""

    TYPE: ClassVar[str] = "hub.module-registered"
    module: str
    instance: str
    lease_us: int | None
    description: str = ""
    operations: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRenewed:
    """A process of a module lives."""

    TYPE: ClassVar[str] = "hub.lease-renewed"
    module: str
    instance: str
    lease_us: int | None
    detail: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceGone:
    """A process of a module is gone: it said so, or its lease has lapsed."""

    TYPE: ClassVar[str] = "hub.instance-gone"
    module: str
    instance: str
    lapsed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleUnregistered:
    """A module is not offered any more."""

    TYPE: ClassVar[str] = "hub.module-unregistered"
    module: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WishChanged:
    """The processes of a module are to do this from now on."""

    TYPES: ClassVar[Mapping[Wish, str]] = {
        "serving": "hub.module-started",
        "draining": "hub.module-draining",
        "stopped": "hub.module-stopped",
    }
    module: str
    before: Wish
    after: Wish
    reason: str = ""

    @property
    def TYPE(self) -> str:
        """The record's type tells what they are to do."""
        return self.TYPES[self.after]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed:
    """Somebody wants messages."""

    TYPE: ClassVar[str] = "hub.subscribed"
    subscription: Subscription


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribed:
    """Somebody wants no messages any more."""

    TYPE: ClassVar[str] = "hub.unsubscribed"
    subscriber: str


# --- operations over modules ----------------------------------------------------------------------------------------------

CallStatus: TypeAlias = Literal[
    "waiting",
    "running",
    "retrying",
    "succeeded",
    "failed",
    "timed_out",
    "skipped",
    "compensating",
    "compensation_retrying",
    "compensated",
    "uncompensated",
]
ExchangeStatus: TypeAlias = Literal["running", "compensating", "completed", "partial", "failed", "compensated"]

CALLS: Mapping[CallStatus, tuple[CallStatus, ...]] = {
    "waiting": ("running", "skipped"),
    "running": ("succeeded", "failed", "timed_out", "retrying"),
    "retrying": ("running", "timed_out"),
    "succeeded": ("compensating",),
    "compensating": ("compensated", "uncompensated", "compensation_retrying"),
    "compensation_retrying": ("compensating", "compensated"),  # the latter when an attempt says late that it was done
    # The way back is for what is known late only: a success of a call that is all or nothing with others, or of its undoing.
    "failed": ("succeeded",),
    "timed_out": ("succeeded",),
    "skipped": (),
    "compensated": ("succeeded",),
    "uncompensated": ("compensated",),
}
CALL_LIFECYCLE = Lifecycle(noun="call", initial=("waiting",), table=CALLS)

EXCHANGES: Mapping[ExchangeStatus, tuple[ExchangeStatus, ...]] = {
    "running": ("completed", "partial", "failed", "compensating"),
    "compensating": ("compensated", "failed"),
    "completed": (),
    "partial": (),
    "failed": ("compensating",),  # as it is taken up again, when an answer comes late that there is something to undo
    "compensated": ("compensating",),
}
EXCHANGE_LIFECYCLE = Lifecycle(noun="coordination", initial=("running",), table=EXCHANGES)

CALLS_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One module's part. `undo_…`: how it is undone; `parameters` may refer to results of calls that it depends on."""

    call_id: str
    module: str
    operation: str
    parameters: Json = None
    depends_on: tuple[str, ...] = ()
    retries: int = 0
    timeout_ms: int | None = None
    undo_module: str | None = None
    undo_operation: str | None = None
    undo_parameters: Json = None
    undo_retries: int = 0
    status: CallStatus = "waiting"
    attempt: int = 0  #: number of the last attempt; those to undo it count on
    undos: int = 0  #: how many of them were to undo it
    undo_tries: int = 0  #: how many of these are of the success that is being undone: one that is told late is undone, too
    answered_late: tuple[int, ...] = ()  #: attempts whose answer came when nobody waited for it any more
    late: tuple[Json, ...] = ()  #: results of those that succeeded, and are to be undone
    due_us: int | None = None  #: of an attempt that runs its end, between two the next beginning
    begun_us: int | None = None
    result: Json = None
    error: MessageError | None = None

    @property
    def attempts(self) -> int:
        """How often it was tried, without what was tried to undo it."""
        return self.attempt - self.undos


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Several calls as one operation."""

    exchange_id: str
    name: str
    kind: Literal["send", "coordinate"]
    calls: Mapping[str, Call]
    atomic: bool
    status: ExchangeStatus
    begun_us: int
    deadline_us: int
    caller: Caller | None
    correlation_id: str
    tenant: str = "default"
    ended_us: int | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeBegun:
    """Calls are to be made."""

    TYPE: ClassVar[str] = "hub.exchange-begun"
    name: str
    kind: Literal["send", "coordinate"]
    calls: tuple[Call, ...]
    atomic: bool
    deadline_us: int
    caller: Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class CallMoved:
    """A call has come further; it is as told here."""

    TYPES: ClassVar[Mapping[CallStatus, str]] = {
        "running": "hub.call-sent",
        "retrying": "hub.call-retried",
        "succeeded": "hub.call-succeeded",
        "failed": "hub.call-failed",
        "timed_out": "hub.call-timed-out",
        "skipped": "hub.call-skipped",
        "compensating": "hub.call-compensating",
        "compensation_retrying": "hub.call-compensation-retried",
        "compensated": "hub.call-compensated",
        "uncompensated": "hub.call-uncompensated",
    }
    call_id: str
    before: CallStatus
    after: CallStatus
    attempt: int = 0
    due_us: int | None = None
    result: Json = None
    error: MessageError | None = None

    @property
    def TYPE(self) -> str:
        """The record's type tells how far it is."""
        return self.TYPES[self.after]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredLate:
    """An answer came that nobody waited for any more. `owed`: what it did is to be undone, else it changes nothing."""

    TYPE: ClassVar[str] = "hub.answered-late"
    call_id: str
    attempt: int
    status: str
    owed: bool = False
    result: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeMoved:
    """The operation as a whole has come further."""

    TYPES: ClassVar[Mapping[ExchangeStatus, str]] = {
        "compensating": "hub.exchange-compensating",
        "completed": "hub.exchange-completed",
        "partial": "hub.exchange-partial",
        "failed": "hub.exchange-failed",
        "compensated": "hub.exchange-compensated",
    }
    before: ExchangeStatus
    after: ExchangeStatus

    @property
    def TYPE(self) -> str:
        """The record's type tells how far it is."""
        return self.TYPES[self.after]


# --- broadcasts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """A message to all who want its type. `received`: subscriber → when it said so."""

    broadcast_id: str
    type: str
    source: str
    data: Json
    begun_us: int
    deadline_us: int
    subscribers: Mapping[str, bool]  #: name → whether it is a module
    received: Mapping[str, int] = field(default_factory=dict)
    late: tuple[str, ...] = ()
    caller: Caller | None = None
    correlation_id: str = ""
    tenant: str = "default"
    ended_us: int | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastBegun:
    """A message is on its way to these subscribers."""

    TYPE: ClassVar[str] = "hub.broadcast-begun"
    type: str
    source: str
    data: Json
    subscribers: Mapping[str, bool]
    deadline_us: int
    caller: Caller | None
    correlation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReceived:
    """A subscriber has the message. `late`: after the deadline."""

    TYPE: ClassVar[str] = "hub.message-received"
    subscriber: str
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastEnded:
    """All have the message, or the time is over."""

    TYPE: ClassVar[str] = "hub.broadcast-ended"
    received: int
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildAsked:
    """The owner of a partition is to fold it anew from its log."""

    TYPE: ClassVar[str] = "hub.rebuild-asked"
    partition: int
    by: str
    reason: str = ""


HubEvent: TypeAlias = (
    RebuildAsked | ModuleRegistered | LeaseRenewed | InstanceGone | ModuleUnregistered | WishChanged | Subscribed | Unsubscribed
    | ExchangeBegun | CallMoved | AnsweredLate | ExchangeMoved | BroadcastBegun | MessageReceived | BroadcastEnded
)  # fmt: skip
EVENTS = (
    RebuildAsked, ModuleRegistered, LeaseRenewed, InstanceGone, ModuleUnregistered, WishChanged, Subscribed, Unsubscribed,
    ExchangeBegun, CallMoved, AnsweredLate, ExchangeMoved, BroadcastBegun, MessageReceived, BroadcastEnded,
)  # fmt: skip
