"""What the parts of a built-in module are: parameters, results, events, and what an operation may answer. Pure.

An operation is a function `decide(view, parameters, request) -> Done | Refusal`. What happened is a domain event: a frozen
dataclass with a `TYPE` (`context.created`). It travels as a `SystemEvent` whose `data` has the dataclass's fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Protocol, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel

from streams import limits
from streams.durations import parse_duration_ms
from streams.errors import InvalidInput, Violation
from streams.log.types import Send
from streams.records import Json, ModuleMessage, derived_id, from_micros, iso, to_micros

Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=limits.ID_CHARACTERS_MAX)]
Text: TypeAlias = Annotated[str, Field(max_length=limits.NAME_CHARACTERS_MAX)]
Identifier: TypeAlias = Annotated[str, Field(min_length=1, max_length=limits.NAME_CHARACTERS_MAX)]

#: Milliseconds, ISO 8601, or a number with `ms s m h d`; milliseconds in the model.
Duration: TypeAlias = Annotated[
    int,
    BeforeValidator(lambda value: _milliseconds(value), json_schema_input_type=int | str),
    Field(ge=0),
]


#: RFC 3339 with an offset.
Instant: TypeAlias = Annotated[Text, AfterValidator(lambda value: _instant(value))]


def _instant(value: str) -> str:
    time_us_of(value)
    return value


def _milliseconds(value: Any) -> int:
    try:
        return parse_duration_ms(value)
    except InvalidInput as error:
        raise ValueError(error.message) from error


class Misfit(ValueError):
    """Parameters that do not go together, and where, below what is checked, the one lies that is wrong."""

    def __init__(self, message: str, *location: int | str) -> None:
        super().__init__(message)
        self.location = location


class Parameters(BaseModel):
    """Parameters of an operation: camelCase in JSON (snake_case is taken too), nothing unnamed, no silent conversions."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, strict=True, defer_build=True)

    #: Fields with an id of an aggregate: the first that is given decides where the operation runs. None given: at the caller's home.
    TARGETS: ClassVar[tuple[str, ...]] = ()

    def target(self) -> str | None:
        """Id of the aggregate that the operation is about; None: it is about none yet."""
        return next((value for name in self.TARGETS if (value := getattr(self, name)) is not None), None)

    @classmethod
    def parameter_names(cls) -> list[str]:
        """What its parameters are called in JSON."""
        return [field.alias or name for name, field in cls.model_fields.items()]


class Result(BaseModel):
    """Result of an operation: camelCase in JSON."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, defer_build=True)


class Versioned(Parameters):
    """What every operation takes that changes something as a whole."""

    expected_version: int | None = Field(None, ge=1, description="Refuse with `conflict` if it is not at this version.")


class Page(Parameters):
    """What every list takes: at most `limit` entries whose id comes after `after`."""

    limit: int = Field(100, ge=1, le=1000, description="Most entries of the answer.")
    after: Text = Field("", description="Only entries whose id comes after this one: `next` of the answer before.")


class Listing(Result):
    """What every list answers beside its entries."""

    #: Names, in JSON, of the field with the entries, and of the id in each of them by which they are ordered.
    ENTRIES: ClassVar[str] = ""
    KEY: ClassVar[str] = ""

    total: int = Field(description="How many entries there are in the partitions that answered.")
    next: str | None = Field(None, description="Give it as `after` for the entries that follow; null: there are none.")
    complete: bool = Field(description="Whether all partitions have answered.")
    missing_partitions: list[int] = Field(default_factory=list, description="Partitions that did not answer in time.")


class DomainEvent(Protocol):
    """Something that happened to an aggregate of a module. A class has one `TYPE`, or `TYPES` from which an event picks its own."""

    @property
    def TYPE(self) -> str:
        """The type of the record: dotted, past tense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asked, as it is kept in a state until the answer is there: enough to build the response of the request."""

    request_id: str
    source_module: str
    target_module: str
    operation: str
    execution_id: str | None = None
    step_id: str | None = None
    attempt: int = 0
    reply_to: str | None = None
    deadline_us: int | None = None
    tenant: str = "default"
    correlation_id: str = ""
    outside: bool = False  #: it waits at the topic of responses

    @classmethod
    def of(cls, message: ModuleMessage, outside: bool) -> Caller:
        """Who sent this request."""
        return cls(
            request_id=message.id,
            source_module=message.source_module,
            target_module=message.target_module or "",
            operation=message.operation,
            execution_id=message.execution_id,
            step_id=message.step_id,
            attempt=message.attempt,
            reply_to=message.reply_to,
            deadline_us=None if message.deadline is None else to_micros(message.deadline),
            tenant=message.tenant,
            correlation_id=message.correlation_id,
            outside=outside,
        )

    def request(self) -> ModuleMessage:
        """The request that it sent, as far as an answer needs it."""
        return ModuleMessage(
            id=self.request_id,
            type=f"{self.target_module}.requested",
            time=from_micros(0),
            tenant=self.tenant,
            correlation_id=self.correlation_id,
            kind="request",
            source_module=self.source_module,
            target_module=self.target_module,
            operation=self.operation,
            execution_id=self.execution_id,
            step_id=self.step_id,
            attempt=self.attempt,
            reply_to=self.reply_to,
            deadline=None if self.deadline_us is None else from_micros(self.deadline_us),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an operation knows about who asks: all that is not a parameter."""

    id: str
    home: str  #: first part of the ids of what the operation creates
    time_us: int  #: decision time, microseconds since the epoch
    caller: Caller

    def new_id(self, kind: str, *parts: object) -> str:
        """The id `<home>/<kind>-<derived>` of what this request creates; `parts` tell several of a kind apart."""
        return f"{self.home}/{kind}-{short_id(self.id, kind, *parts)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """An event and the aggregate that it belongs to; `subject` is what it is about (default: the aggregate)."""

    aggregate_id: str
    event: DomainEvent
    subject: str | None = None
    correlation_id: str = ""  #: the story that it belongs to; empty: that of the request


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """An operation succeeded: what happened, its result, and what is sent. `aggregate_id` is what the request was about."""

    aggregate_id: str | None
    result: Result
    events: tuple[Decided, ...] = ()
    effects: tuple[Send, ...] = ()
    answers: tuple[Answered, ...] = ()  #: to callers that waited for this


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """An operation has begun; its answer comes later (`Answered`), from the state of `aggregate_id`, which keeps the caller.

    Without events it is a repeat of a request that is under way already, and nothing new is recorded.
    """

    aggregate_id: str
    events: tuple[Decided, ...] = ()
    effects: tuple[Send, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An operation was refused: a stable code, a sentence, and where in the parameters the fault lies."""

    code: str
    message: str
    pointer: str | None = None
    faults: tuple[Violation, ...] = ()
    retryable: bool = False


Outcome: TypeAlias = Done | Refusal | Pending


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The answer to a caller that waited, from the aggregate that kept it."""

    caller: Caller
    aggregate_id: str
    answer: Json | Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """What follows from a timer, or from a message that is no request: events, what is sent, and answers to callers that waited."""

    events: tuple[Decided, ...] = ()
    effects: tuple[Send, ...] = ()
    answers: tuple[Answered, ...] = ()


NOTHING_FOLLOWS = Follow()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a module: what it takes, what it gives, and the function that decides it."""

    parameters: type[Parameters]
    result: type[Result]
    decide: Callable[..., Outcome]  #: (view, parameters of the type above, request)
    gathers: bool = False  #: a list, which is asked of all partitions unless its parameters name an aggregate

    def summary(self) -> str:
        """One sentence for people."""
        return (self.decide.__doc__ or "").strip().splitlines()[0]


def not_found(noun: str, given: str, pointer: str) -> Refusal:
    """The refusal of an id that names nothing."""
    return Refusal(code="not-found", message=f"There is no {noun} {given!r}.", pointer=pointer)


def conflict(message: str, pointer: str | None = None, faults: tuple[Violation, ...] = ()) -> Refusal:
    """The refusal of what the present state does not allow."""
    return Refusal(code="conflict", message=message, pointer=pointer, faults=faults)


def invalid(message: str, pointer: str) -> Refusal:
    """The refusal of a parameter that is well-typed, but wrong."""
    return Refusal(code="invalid", message=message, pointer=pointer, faults=(Violation(code="invalid", pointer=pointer, message=message),))


def short_id(*parts: object) -> str:
    """16 hexadecimal digits that derive from `parts`."""
    return derived_id(*parts).replace("-", "")[:16]


def time_text(time_us: int) -> str:
    """RFC 3339 text of microseconds since the epoch."""
    return iso(from_micros(time_us))


def time_us_of(text: str) -> int:
    """Microseconds since the epoch of an RFC 3339 time with an offset. Raises `ValueError`."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time as 2026-01-31T12:00:00Z") from None
    if found.tzinfo is None:
        raise ValueError(f"{text!r} does not say in which zone it is: end it with Z or an offset")
    return to_micros(found)


def types_of(event_class: type[Any]) -> tuple[str, ...]:
    """All record types that events of this class have."""
    several: Mapping[str, str] | None = getattr(event_class, "TYPES", None)
    return (event_class.TYPE,) if several is None else tuple(several.values())


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def adapter(event_class: type[Any]) -> TypeAdapter[Any]:
    """Reads and writes the `data` of a domain event; made once per class."""
    found = _ADAPTERS.get(event_class)
    if found is None:
        found = _ADAPTERS[event_class] = TypeAdapter(event_class)
    return found


def event_data(event: DomainEvent) -> dict[str, Any]:
    """The event's fields as JSON values."""
    data: dict[str, Any] = adapter(type(event)).dump_python(event, mode="json")
    return data
