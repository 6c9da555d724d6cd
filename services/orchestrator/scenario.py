"""Scenarios of `mplp workflow test` as documents: input, answers of modules, commands at virtual times, and what is expected."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, TypeAlias, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from services.orchestrator.schema import pointer_of
from streams.durations import parse_duration_ms
from streams.errors import InvalidDocument, InvalidInput, Violation
from streams.records import CommandName, Json, from_micros


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


def _milliseconds(value: Any) -> int:
    try:
        return parse_duration_ms(value)
    except InvalidInput as error:
        raise ValueError(error.message) from error


class AnswerError(_Strict):
    """The error that a module answers with."""

    code: str
    message: str = ""
    retryable: bool = False


class Answer(_Strict):
    """One answer of a module's operation, a result or an error; `after` in milliseconds."""

    result: Any = Field(default_factory=dict)
    error: AnswerError | None = None
    after: int = 0

    _after = field_validator("after", mode="before")(_milliseconds)

    @model_validator(mode="after")
    def _either(self) -> Answer:
        if self.error is not None and "result" in self.model_fields_set:
            raise ValueError("An answer is a result or an error")
        return self


def _never(value: Any) -> Any:
    if value is None:
        raise ValueError("An answer is `never`, a result or an error")
    return None if value == "never" else value


#: An answer, or None: there is never one, so that the attempt runs into its time-out.
MaybeAnswer: TypeAlias = Annotated[Answer | None, BeforeValidator(_never)]


class Moment(_Strict):
    """Commands at a virtual time, milliseconds after the start; those of one moment in the order of these fields."""

    time: int
    pause: dict[str, Any] | None = None
    resume: dict[str, Any] | None = None
    cancel: dict[str, Any] | None = None
    retry: dict[str, Any] | None = None
    signal: dict[str, Any] | None = None
    answer: dict[str, Any] | None = None
    fork: dict[str, Any] | None = None

    _time = field_validator("time", mode="before")(_milliseconds)

    def commands(self) -> Iterator[tuple[CommandName, dict[str, Any]]]:
        """The commands that are given, with their data."""
        names: tuple[CommandName, ...] = get_args(CommandName)
        for name in type(self).model_fields:
            if name in names and (data := getattr(self, name)) is not None:
                yield name, data


class Scenario(_Strict):
    """What a test gives: input, the modules' answers in order of calls (the last repeats), commands, and what is expected."""

    id: str = "test"
    start: datetime = from_micros(1_767_225_600_000_000)  # 2026-01-01
    input: Any = Field(default_factory=dict)
    event: dict[str, Any] | None = None  #: starts it by the trigger that takes it, which makes the input
    modules: dict[str, list[MaybeAnswer]] = Field(default_factory=dict)
    workflows: dict[str, dict[str, Any]] = Field(default_factory=dict)  #: published definitions, which steps name by id
    at: list[Moment] = Field(default_factory=list)
    expect: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Scenario:
        if self.event is not None and "input" in self.model_fields_set:
            raise ValueError("An execution has the input that is given, or what its trigger makes of the event")
        return self

    @field_validator("start")
    @classmethod
    def _aware(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("A time needs its offset, e.g. 2026-01-01T00:00:00Z")
        return value


def read_scenario(document: Json) -> Scenario:
    """The scenario in a document. Raises `InvalidDocument` (`scenario.invalid`) with all faults."""
    try:
        return Scenario.model_validate({} if document is None else document)
    except ValidationError as error:
        faults = [
            Violation(code=f"scenario.{fault['type']}", pointer=pointer_of(fault["loc"]), message=_sentence(fault["msg"]))
            for fault in error.errors(include_url=False)
        ]
        number = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise InvalidDocument("scenario.invalid", f"The scenario has {number}.", faults) from error


def _sentence(message: str) -> str:
    """A message of pydantic without its prefix, which says nothing to people."""
    return f"{message.removeprefix('Value error, ').rstrip('.')}."
