"""What the parts of a built-in module are: parameters, results, events, and what an operation may answer. Pure.

An operation is a function `decide(view, parameters, request) -> Done | Refusal`. What happened is a domain event: a frozen
dataclass with a `TYPE` (`context.created`). It travels as a `SystemEvent` whose `data` has the dataclass's fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel

from streams import limits
from streams.errors import Violation
from streams.records import derived_id, from_micros, iso

Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=limits.ID_CHARACTERS_MAX)]
Text: TypeAlias = Annotated[str, Field(max_length=limits.NAME_CHARACTERS_MAX)]
Identifier: TypeAlias = Annotated[str, Field(min_length=1, max_length=limits.NAME_CHARACTERS_MAX)]


class Parameters(BaseModel):
    """Parameters of an operation: camelCase in JSON (snake_case is taken too), nothing unnamed, no silent conversions."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, strict=True)

    #: Fields with an id of an aggregate: the first that is given decides where the operation runs. None given: at the caller's home.
    TARGETS: ClassVar[tuple[str, ...]] = ()

    def target(self) -> str | None:
        """Id of the aggregate that the operation is about; None: it is about none yet."""
        return next((value for name in self.TARGETS if (value := getattr(self, name)) is not None), None)


class Result(BaseModel):
    """Result of an operation: camelCase in JSON."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Page(Parameters):
    """What every list takes: at most `limit` entries whose id comes after `after`."""

    limit: int = Field(100, ge=1, le=1000, description="Most entries of the answer.")
    after: Text = Field("", description="Only entries whose id comes after this one: `next` of the answer before.")


class Listing(Result):
    """What every list answers beside its entries."""

    total: int = Field(description="How many entries there are in the partitions that were asked.")
    next: str | None = Field(None, description="Give it as `after` for the entries that follow; null: there are none.")
    complete: bool = Field(description="Whether all partitions were asked.")
    missing_partitions: list[int] = Field(default_factory=list, description="Partitions that were not asked.")


class DomainEvent(Protocol):
    """Something that happened to an aggregate of a module. A class has one `TYPE`, or `TYPES` from which an event picks its own."""

    @property
    def TYPE(self) -> str:
        """The type of the record: dotted, past tense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an operation knows about who asks: all that is not a parameter."""

    id: str
    home: str  #: first part of the ids of what the operation creates
    time_us: int  #: decision time, microseconds since the epoch

    def new_id(self, kind: str, *parts: object) -> str:
        """The id `<home>/<kind>-<derived>` of what this request creates; `parts` tell several of a kind apart."""
        return f"{self.home}/{kind}-{short_id(self.id, kind, *parts)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """An event and the aggregate that it belongs to; `subject` is what it is about (default: the aggregate)."""

    aggregate_id: str
    event: DomainEvent
    subject: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """An operation succeeded: what happened, and its result. `aggregate_id` is what the request was about."""

    aggregate_id: str | None
    result: Result
    events: tuple[Decided, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An operation was refused: a stable code, a sentence, and where in the parameters the fault lies."""

    code: str
    message: str
    pointer: str | None = None
    faults: tuple[Violation, ...] = ()
    retryable: bool = False


Outcome: TypeAlias = Done | Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a module: what it takes, what it gives, and the function that decides it."""

    parameters: type[Parameters]
    result: type[Result]
    decide: Callable[..., Outcome]  #: (view, parameters of the type above, request)

    def summary(self) -> str:
        """One sentence for people."""
        return (self.decide.__doc__ or "").strip().splitlines()[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIn:
    """A built-in module: its operations, its events, and the fold of its events."""

    operations: Mapping[str, Operation]
    events: tuple[type[Any], ...]
    evolve: Callable[..., Any]  #: (state | None, event, aggregate id, time in microseconds) -> state | None


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
