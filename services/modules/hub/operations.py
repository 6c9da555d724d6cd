"""Parameters and results of the hub operations."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from services.modules.hub.state import CALLS_MAX, REGISTRY, Broadcast, Call, CallStatus, Exchange, ExchangeStatus, Subscription
from services.modules.operation import Duration, Identifier, Listing, Misfit, Name, Page, Parameters, Result, Text, time_text
from streams.records import Json

BUILT_IN: Literal["built-in"] = "built-in"
REGISTERED: Literal["registered"] = "registered"
Kind: TypeAlias = Literal["built-in", "registered"]
Status: TypeAlias = Literal["serving", "draining", "stopped", "silent"]
#: What may be a subscriber: it is a key, so no slash.
SubscriberName: TypeAlias = Annotated[str, Field(pattern=r"^[\w.:@-]+$", max_length=200)]
#: A week: as long as inboxes keep what lies in them.
TIMEOUT_MS_MAX = 7 * 24 * 3600 * 1000
Timeout: TypeAlias = Annotated[Duration, Field(gt=0, le=TIMEOUT_MS_MAX)]


class OfHub(Parameters):
    """Everything of the hub lives in one place."""

    def target(self) -> str | None:
        """See `Parameters.target`."""
        return REGISTRY


class HubPage(Page):
    """A list of the hub."""

    def target(self) -> str | None:
        """See `Parameters.target`."""
        return REGISTRY


class Register(OfHub):
    """Parameters of register."""

    module: Name
    instance: Name | None = Field(None, description="Of the process; several of a module share its requests. Without: the module's name.")
    description: Text = ""
    operations: dict[Name, dict[str, Json]] | None = Field(
        None,
        max_length=1000,
        description="Name → description, and JSON Schemas of parameters and result. May be left out to renew a lease.",
    )
    lease: Duration | None = Field(
        None, gt=0, description="How long the process counts as living unless it registers again. Without: for ever."
    )
    detail: Json = Field(None, description="Whatever the process says of itself, e.g. how much it has to do.")


class Unregister(OfHub):
    """Parameters of unregister."""

    module: Name
    instance: Name | None = Field(None, description="Only this process. Without: the module as a whole.")
    reason: Text = ""


class Move(OfHub):
    """Parameters of start, drain and stop. The processes of the module learn it when they renew their leases."""

    module: Name
    reason: Text = ""


class ListModules(HubPage):
    """Parameters of list: conditions that all must hold."""

    kind: Kind | None = None
    status: Status | None = None
    operation: Name | None = Field(None, description="Only modules with this operation.")
    brief: bool = Field(False, description="Operations with their descriptions, without their schemas.")
    text: Text | None = Field(None, description="Part of the name or description, without regard to case.")


class GetModule(OfHub):
    """Parameters of get."""

    module: Name


class Undo(Parameters):
    """How a call is undone."""

    module: Name | None = Field(None, description="Without: the call's own.")
    operation: Name
    parameters: Json = Field(default_factory=dict, description="`${id.result.path}` refers to the results of calls that succeeded.")
    retries: int | None = Field(
        None, ge=0, le=100, description="How often it is tried again after an error that may pass. Without: as often as the call."
    )


class WantedCall(Parameters):
    """One module's part in a coordination."""

    id: Name | None = Field(None, description="Without: `<module>.<operation>`.")
    module: Name
    operation: Name
    parameters: Json = Field(default_factory=dict, description="`${id.result.path}` refers to the results of calls that it depends on.")
    depends_on: list[Name] = Field(default_factory=list, max_length=CALLS_MAX)
    retries: int = Field(0, ge=0, le=100, description="How often it is tried again after an error that may pass.")
    timeout: Timeout | None = Field(None, description="Of each attempt. Without: until the end of the coordination.")
    compensate: Undo | None = None

    @property
    def name(self) -> str:
        """Its id in the coordination."""
        return self.id or f"{self.module}.{self.operation}"


class Coordinate(OfHub):
    """Parameters of coordinate: one operation over several modules."""

    name: Text = ""
    calls: list[WantedCall] = Field(min_length=1, max_length=CALLS_MAX)
    mode: Literal["dependencies", "parallel", "sequence"] = Field(
        "dependencies",
        description="`dependencies`: each after those that it depends on; `parallel`: all at once; `sequence`: one by one.",
    )
    all_or_nothing: bool = Field(False, description="If one fails, those that succeeded are undone by their `compensate`, the last first.")
    timeout: Timeout = Field(30_000, validate_default=False, description="Of the whole.")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        names = [call.name for call in self.calls]
        for index, call in enumerate(self.calls):
            if call.name in names[:index]:
                raise Misfit("two calls have the same id", "calls", index, "id")
            if self.mode != "dependencies" and call.depends_on:
                raise Misfit("dependsOn needs the mode dependencies", "calls", index, "dependsOn")
            for place, each in enumerate(call.depends_on):
                if each not in names:
                    raise Misfit(f"{call.name} depends on {each}, which there is not", "calls", index, "dependsOn", place)
        return self


class Send(OfHub):
    """Parameters of send: a request to a module."""

    module: Name
    operation: Name
    parameters: Json = Field(default_factory=dict)
    timeout: Timeout = Field(
        30_000, validate_default=False, description="How long the module may take to answer; it may be down until then."
    )
    retries: int = Field(0, ge=0, le=100)


class BroadcastParameters(OfHub):
    """Parameters of broadcast."""

    type: Name = Field(description="What the message is: dotted, past tense.")
    data: Json = Field(default_factory=dict)
    source: Name | None = Field(None, description="Who sends it. Without: the caller.")
    timeout: Timeout = Field(30_000, validate_default=False, description="How long subscribers that are away are waited for.")
    wait: bool = Field(True, description="Answer when all have received it or the time is over; else at once.")


class Subscribe(OfHub):
    """Parameters of subscribe."""

    subscriber: SubscriberName
    types: list[Name] = Field(min_length=1, max_length=100, description="Globs: `order.*`, `**`.")
    source: Name | None = Field(None, description="Glob of who sends.")
    module: bool = Field(False, description="The subscriber is a module: messages go to its inbox.")


class Unsubscribe(OfHub):
    """Parameters of unsubscribe."""

    subscriber: SubscriberName


class Subscriptions(HubPage):
    """Parameters of subscriptions."""

    type: Name | None = Field(None, description="Only who has subscribed to exactly this.")


class Report(OfHub):
    """Parameters of report."""

    id: Identifier = Field(description="Of a coordination, a message or a broadcast.")


class Registered(Result):
    """What register answers."""

    module: str
    instance: str
    wish: Literal["serving", "draining", "stopped"] = Field(description="What the process is to do.")
    lease_until: str | None


class ModuleGone(Result):
    """What unregister answers."""

    module: str
    instance: str | None
    unregistered: bool


class ModuleResult(Result):
    """A module."""

    module: str
    kind: Kind
    status: Status = Field(description="`silent`: no process of it lives.")
    description: str
    operations: dict[str, Json] = Field(description="Name → description, and JSON Schemas of parameters and result.")
    instances: dict[str, Json] = Field(description="Processes that live.")
    registered_at: str | None


class ModuleList(Listing):
    """Modules in order of their names."""

    ENTRIES: ClassVar[str] = "modules"
    KEY: ClassVar[str] = "module"

    modules: list[ModuleResult]


class SubscriptionResult(Result):
    """Who wants which messages."""

    subscriber: str
    types: list[str]
    source: str | None
    module: bool
    sent_again: int = Field(description="Messages that came while the subscriber was away, and were sent again.")

    @classmethod
    def of(cls, found: Subscription, sent_again: int) -> Self:
        """The subscription as callers see it."""
        return cls(subscriber=found.subscriber, types=list(found.types), source=found.source, module=found.is_module, sent_again=sent_again)


class SubscriptionList(Listing):
    """Subscribers in order of their names."""

    ENTRIES: ClassVar[str] = "subscriptions"
    KEY: ClassVar[str] = "subscriber"

    subscriptions: list[SubscriptionResult]


class ErrorResult(Result):
    """Why a call failed."""

    code: str
    message: str
    retryable: bool


class CallResult(Result):
    """What became of one call."""

    id: str
    module: str
    operation: str
    status: CallStatus
    attempts: int = Field(description="How often it was tried, without what was tried to undo it.")
    undo_attempts: int = Field(description="How often it was tried to undo it.")
    answered_late: int = Field(description="How many attempts, also to undo it, had their answer when nobody waited for it any more.")
    result: Json
    error: ErrorResult | None

    @classmethod
    def of(cls, call: Call) -> Self:
        """The call as callers see it."""
        error = call.error
        return cls(
            id=call.call_id,
            module=call.module,
            operation=call.operation,
            status=call.status,
            attempts=call.attempts,
            undo_attempts=call.undos,
            answered_late=len(call.answered_late),
            result=call.result,
            error=None if error is None else ErrorResult(code=error.code, message=error.message, retryable=error.retryable),
        )


class CoordinationResult(Result):
    """What became of a coordination: of the whole, and of each call."""

    coordination_id: str
    name: str
    status: ExchangeStatus = Field(description="`partial`: some calls succeeded, some did not.")
    succeeded: int
    failed: int
    calls: list[CallResult]
    duration_ms: float | None

    @classmethod
    def of(cls, state: Exchange) -> Self:
        """The coordination as callers see it."""
        calls = list(state.calls.values())
        return cls(
            coordination_id=state.exchange_id,
            name=state.name,
            status=state.status,
            succeeded=sum(call.status == "succeeded" for call in calls),
            failed=sum(call.status in ("failed", "timed_out", "skipped") for call in calls),
            calls=[CallResult.of(call) for call in calls],
            duration_ms=None if state.ended_us is None else (state.ended_us - state.begun_us) / 1000,
        )


class SentResult(Result):
    """The answer of a module."""

    message_id: str
    module: str
    operation: str
    result: Json


class BroadcastResult(Result):
    """Who has received a broadcast."""

    broadcast_id: str
    type: str
    status: Literal["running", "ended"]
    subscribers: int
    received: list[str]
    missing: list[str] = Field(description="Who has not received it, or after the deadline.")
    late: list[str] = Field(description="Who received it after the deadline.")
    deadline: str

    @classmethod
    def of(cls, state: Broadcast) -> Self:
        """The broadcast as callers see it."""
        return cls(
            broadcast_id=state.broadcast_id,
            type=state.type,
            status="running" if state.ended_us is None else "ended",
            subscribers=len(state.subscribers),
            received=sorted(state.received),
            missing=sorted(name for name in state.subscribers if name not in state.received),
            late=sorted(state.late),
            deadline=time_text(state.deadline_us),
        )


class ReportResult(Result):
    """What became of a coordination, a message or a broadcast."""

    id: str
    coordination: CoordinationResult | None
    broadcast: BroadcastResult | None
