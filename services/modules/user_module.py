"""A module of a user's own: named operations as plain or async functions, with pydantic models at their borders.

    module = Module("invoices")

    @module.operation("draft")
    async def draft(parameters: Draft, call: Call) -> Invoice: ...

    module.main()

Requests come at least once: after a crash the same request comes again, with the same `Call.request_id`. An operation that
changes something outside uses it as idempotency key.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from services.modules.call import Call
from services.modules.faults import FAULTS_MAX, refusal_of
from services.modules.operation import Refusal
from streams import limits
from streams.errors import InvalidInput, Violation
from streams.matching.globs import glob_matches
from streams.operations import CONTRACT
from streams.records import Json
from streams.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_CODE = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")


class OperationFailed(Exception):
    """An operation's own refusal or failure: it becomes the error of the response.

    `code` is stable and for programs (lower case, digits, `.` and `-`), `message` one sentence for a person, `retryable` says
    whether the same request may succeed later. Workflows retry by code first: see `retryable` and `non-retryable` there.
    """

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        if not _CODE.fullmatch(code):
            raise ValueError(f"{code!r} is no error code: use lower case letters and digits, with . or - between them")
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retryable = retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class UserOperation:
    """An operation of a user's module."""

    name: str
    function: Callable[..., Any]
    parameters: TypeAdapter[Any] | None  #: None: it takes none
    result: TypeAdapter[Any] | None  #: None: not annotated, whatever it returns is made JSON
    takes_call: bool
    silence_ms: int | None = None  #: how long it may be silent; None: it has no heartbeats

    async def answer(self, given: Json, call: Call, executor: Executor) -> Json | Refusal:
        """Calls the function and gives its result as JSON; plain functions run in `executor`.

        When it is cancelled a plain function goes on in its thread (`call.lifeline.thread`) until it looks at its call.

        Parameters that do not fit are the refusal `invalid`. Raises whatever the function raises, and `TypeError` or
        `ValueError` when its result is not what it declares.
        """
        arguments: list[Any] = []
        if self.parameters is not None:
            try:
                arguments.append(self.parameters.validate_python(given))
            except ValidationError as error:
                return refusal_of(error, given)
        elif given:
            return _takes_none(self.name, given)
        if self.takes_call:
            arguments.append(call)
        if inspect.iscoroutinefunction(self.function):
            returned = await self.function(*arguments)
        else:
            context = contextvars.copy_context()
            call.lifeline.thread = executor.submit(context.run, self.function, *arguments)
            returned = await asyncio.wrap_future(call.lifeline.thread)
        return self._to_json(returned)

    def _to_json(self, returned: Any) -> Json:
        try:
            if self.result is None:
                return to_jsonable_python(returned, by_alias=True)
            return self.result.dump_python(self.result.validate_python(returned), mode="json", by_alias=True)
        except PydanticSerializationError as error:
            raise TypeError(f"{self.name} returned what is no JSON: {error}") from error
        except ValidationError as error:
            raise TypeError(f"{self.name} returned what does not fit its result: {refusal_of(error, returned).message}") from error

    def describe(self) -> dict[str, Any]:
        """What others may know of it: a sentence, and the JSON Schemas of parameters and result."""
        return {
            "description": (inspect.getdoc(self.function) or "").partition("\n")[0],
            "parameters": {"type": "object", "additionalProperties": False} if self.parameters is None else self.parameters.json_schema(),
            "result": {} if self.result is None else self.result.json_schema(mode="serialization"),
            **({} if self.silence_ms is None else {"heartbeat_ms": self.silence_ms}),
        }


class Module:
    """A named set of operations that runs in a process of its own, any number of times."""

    def __init__(self, name: str, *, description: str = "") -> None:
        """`name` is kebab-case and not a built-in module's. Raises `InvalidInput` (`module.name`)."""
        if not _NAME.fullmatch(name) or len(name) > 100:
            raise InvalidInput("module.name", f"{name!r} is no module name: lower case letters, digits and - between them.")
        if name in CONTRACT:
            raise InvalidInput("module.name", f"{name} is a built-in module; choose another name.")
        self.name = name
        self.description = description
        self._operations: dict[str, UserOperation] = {}
        self._listeners: dict[str, UserOperation] = {}

    @property
    def listeners(self) -> Mapping[str, UserOperation]:
        """What is called for broadcasts, by the glob of their types."""
        return self._listeners

    def listener(self, type: str) -> UserOperation | None:
        """The first listener that wants broadcasts of this type."""
        return next((found for glob, found in self._listeners.items() if glob_matches(glob, type)), None)

    def on(self, types: str) -> Callable[[F], F]:
        """Makes a function the listener of broadcasts whose type the glob `types` matches (`order.*`, `**`).

        It is annotated as an operation; what it returns is ignored. The broadcast counts as received when it has returned; one that
        raises is called again when the module subscribes again, until the broadcast's deadline. Raises `InvalidInput`
        (`operation.signature`).
        """

        def register(function: F) -> F:
            self._listeners[types] = _operation("on", function)
            return function

        return register

    @property
    def operations(self) -> Mapping[str, UserOperation]:
        """The operations by name."""
        return self._operations

    def operation(self, name: str, *, heartbeat_timeout: float | None = None) -> Callable[[F], F]:
        """Makes a function, plain or async, an operation.

        Its first parameter is annotated with what it takes (a pydantic model, a dataclass, dict), a parameter annotated `Call`
        gets the call; both may be left out. Its annotated result is checked and becomes the response. It may raise
        `OperationFailed`. With `heartbeat_timeout` (seconds) it is to say that it lives at least so often, by `Call.heartbeat`, when a
        workflow calls it. Raises `InvalidInput` (`operation.name`, `operation.signature`, `operation.heartbeat`) for what cannot be called.
        """
        if not _NAME.fullmatch(name) or len(name) > 100:
            raise InvalidInput("operation.name", f"{name!r} is no operation name: lower case letters, digits and - between them.")
        if name in self._operations:
            raise InvalidInput("operation.name", f"The module {self.name} has an operation {name} already.")
        silence_ms = None if heartbeat_timeout is None else round(heartbeat_timeout * 1000)
        if silence_ms is not None and not 100 <= silence_ms <= limits.HEARTBEAT_MS_MAX:
            raise InvalidInput(
                "operation.heartbeat", f"The heartbeat_timeout of {name} is 0.1 to {limits.HEARTBEAT_MS_MAX // 1000} seconds."
            )

        def register(function: F) -> F:
            found = _operation(name, function, silence_ms)
            if silence_ms is not None and not found.takes_call:
                raise InvalidInput("operation.signature", f"{name} has heartbeats: it takes a Call, by which it tells them.")
            self._operations[name] = found
            return function

        return register

    async def run(self, settings: Settings | None = None, *, ready: Callable[[], None] | None = None) -> None:
        """Serves until cancelled; `ready` is called once requests are taken.

        Raises `Unavailable` (`kafka.unreachable`) and `InvalidInput` (`schema.unregistered`), with advice.
        """
        from services.modules.worker import ModuleWorker  # Kafka clients load only where they are used

        await ModuleWorker(self, settings if settings is not None else Settings()).run(ready)

    def main(self) -> None:
        """Serves until SIGTERM or Ctrl-C; prints `ready` on stdout once requests are taken. Exit codes are those of `mplp`."""
        from services.modules.process import serve_process

        serve_process(self)


def _takes_none(name: str, given: Json) -> Refusal:
    """The refusal of parameters of an operation that has none: each is told."""
    names = [str(each).replace("~", "~0").replace("/", "~1") for each in given] if isinstance(given, dict) else []
    pointers = [f"/{each}" for each in names[:FAULTS_MAX]] or [""]
    message = f"{name} takes no parameters."
    faults = tuple(Violation(code="invalid", pointer=pointer, message=message) for pointer in pointers)
    return Refusal(code="invalid", message=message, pointer=pointers[0], faults=faults)


def _operation(name: str, function: Callable[..., Any], silence_ms: int | None = None) -> UserOperation:
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise InvalidInput("operation.signature", f"An annotation of {name} cannot be resolved at module level: {error}.") from error
    taken = [parameter for parameter in inspect.signature(function).parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    unnamed = [parameter.name for parameter in taken if parameter.name not in hints]
    if unnamed:
        raise InvalidInput("operation.signature", f"Annotate the parameter {unnamed[0]} of {name}: with what it takes, or with Call.")
    models = [hints[parameter.name] for parameter in taken if hints[parameter.name] is not Call]
    calls = [parameter for parameter in taken if hints[parameter.name] is Call]
    if len(models) > 1 or len(calls) > 1 or (calls and taken[-1] is not calls[0]):
        raise InvalidInput("operation.signature", f"{name} may take one parameter with what it is given, and after it one Call.")
    return UserOperation(
        name=name,
        function=function,
        parameters=_adapter(name, models[0]) if models else None,
        result=_adapter(name, hints["return"]) if "return" in hints else None,
        takes_call=bool(calls),
        silence_ms=silence_ms,
    )


def _adapter(name: str, annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation)
    except PydanticSchemaGenerationError as error:
        raise InvalidInput("operation.signature", f"{name}: {annotation!r} cannot be read from JSON: {error}") from error


__all__ = ["Call", "Module", "OperationFailed", "UserOperation"]
