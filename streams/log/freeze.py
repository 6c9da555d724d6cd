"""States as JSON and back: how a machine's states go into snapshots. Pure.

A `StateFormat` is made from the state's classes (frozen dataclasses, and what they contain). It writes a field only where it
differs from its default, and gives the very same value back: tuples, sets and nested dataclasses included. Its `version`
names the shape of the classes (every field, with its type) and a number that the machine raises when the *meaning* of a state
changes: a snapshot of another version is not read, the log is folded instead.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, dataclass
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from streams.errors import InvalidInput
from streams.log.persistent import PersistentMap, SortedSet

State = TypeVar("State")

_PLAIN = (int, str, float, bool, type(None), object)


@dataclass(frozen=True, slots=True)
class _Codec:
    """How values of one type are written and read; `shape` is the text that the version is made of. None: as they are."""

    shape: str
    dump: Callable[[Any], Any] | None = None
    load: Callable[[Any], Any] | None = None


class StateFormat(Generic[State]):
    """Writes and reads the states of one machine. `classes`: all that a state may be; `meaning`: raised when it changes."""

    def __init__(self, *classes: type[State], meaning: int = 1) -> None:
        self._known: dict[Any, _Codec] = {}
        self._codec = self._union(classes) if len(classes) > 1 else self._of(classes[0])
        self._tagged = len(classes) > 1 and self._codec.dump is not None
        self.version = f"{meaning}:{hashlib.sha256(self._codec.shape.encode()).hexdigest()[:16]}"

    def dump(self, state: State) -> Any:
        """The state as a JSON value."""
        return state if self._codec.dump is None else self._codec.dump(state)

    def may_be(self, value: Any, cls: type[Any]) -> bool:
        """Whether what `dump` wrote may be of this class, as far as that is told without loading it."""
        return not self._tagged or (isinstance(value, list) and bool(value) and value[0] == cls.__name__)

    def load(self, value: Any) -> State:
        """The state that `dump` wrote. Raises `InvalidInput` (`snapshot.unreadable`)."""
        try:
            loaded: State = value if self._codec.load is None else self._codec.load(value)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InvalidInput("snapshot.unreadable", f"A snapshot does not have the shape of a state: {error!r}.") from error
        return loaded

    # --- types ------------------------------------------------------------------------------------------------------

    def _of(self, tp: Any) -> _Codec:
        if tp is Any or tp in _PLAIN:
            return _Codec(getattr(tp, "__name__", "Any"))
        found = self._known.get(tp)
        if found is None:
            found = self._made(tp)
            self._known[tp] = found
        return found

    def _made(self, tp: Any) -> _Codec:
        origin, arguments = get_origin(tp), get_args(tp)
        if isinstance(tp, type) and dataclasses.is_dataclass(tp):
            return self._dataclass(tp)
        if origin is Literal:
            # The very objects of the type's definition: no text of a status is kept twice.
            known = {value: value for value in arguments}
            return _Codec(str(tp), None, known.__getitem__)
        if origin in (Union, types.UnionType):
            others = [argument for argument in arguments if argument is not type(None)]
            inner = self._of(others[0]) if len(others) == 1 else self._union(others)
            return _optional(inner) if len(others) < len(arguments) else inner
        if origin is tuple:
            if len(arguments) == 2 and arguments[1] is ...:
                return _sequence(self._of(arguments[0]), tuple)
            return _fixed([self._of(argument) for argument in arguments])
        if isinstance(origin, type) and issubclass(origin, AbstractSet):
            return _sequence(self._of(arguments[0]), frozenset)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            into = PersistentMap if origin is PersistentMap else dict
            return _mapping(arguments[0], self._of(arguments[0]), self._of(arguments[1]), into)
        if origin is SortedSet:
            return _sequence(self._of(arguments[0]), SortedSet)
        if isinstance(origin, type) and issubclass(origin, Sequence):
            return _sequence(self._of(arguments[0]), list)
        raise TypeError(f"A state may not contain {tp!r}.")

    def _union(self, classes: Sequence[Any]) -> _Codec:
        """One of several: dataclasses are told apart by their names; plain types need no telling."""
        if all(cls is Any or cls in _PLAIN for cls in classes):
            return _Codec("|".join(cls.__name__ for cls in classes))
        if any(not (isinstance(cls, type) and dataclasses.is_dataclass(cls)) for cls in classes):
            raise TypeError(f"A state may be one of several dataclasses, not of {classes!r}.")
        codecs = {cls.__name__: self._of(cls) for cls in classes}

        def dump(value: Any) -> Any:
            name = type(value).__name__
            return [name, codecs[name].dump(value)]  # type: ignore[misc]

        def load(value: Any) -> Any:
            return codecs[value[0]].load(value[1])  # type: ignore[misc]

        return _Codec(f"one of({','.join(f'{name}:{codec.shape}' for name, codec in codecs.items())})", dump, load)

    def _dataclass(self, cls: type[Any]) -> _Codec:
        # Known before its fields are looked at, so that a class may contain itself.
        names: list[tuple[str, Any, Any]] = []
        members: dict[str, _Codec] = {}

        def dump(value: Any) -> dict[str, Any]:
            written = {}
            for name, default, codec in names:
                field_value = getattr(value, name)
                if field_value is not default and (default is MISSING or field_value != default):
                    written[name] = field_value if codec is None else codec(field_value)
            return written

        def load(value: Any) -> Any:
            return cls(**{name: raw if (read := members[name].load) is None else read(raw) for name, raw in value.items()})

        self._known[cls] = _Codec(cls.__name__, dump, load)
        hints = get_type_hints(cls)
        for field in dataclasses.fields(cls):
            members[field.name] = self._of(hints[field.name])
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            names.append((sys.intern(field.name), default, members[field.name].dump))
        shape = ",".join(f"{name}:{codec.shape}" for name, codec in members.items())
        return _Codec(f"{cls.__name__}({shape})", dump, load)


def _optional(inner: _Codec) -> _Codec:
    dump, load = inner.dump, inner.load
    return _Codec(
        f"{inner.shape}?",
        None if dump is None else lambda value: None if value is None else dump(value),
        None if load is None else lambda value: None if value is None else load(value),
    )


def _sequence(inner: _Codec, into: Callable[[Any], Any]) -> _Codec:
    dump, load = inner.dump, inner.load
    return _Codec(
        f"{getattr(into, '__name__', '')}[{inner.shape}]",
        list if dump is None else lambda value: [dump(item) for item in value],
        into if load is None else lambda value: into(load(item) for item in value),
    )


def _fixed(inner: Sequence[_Codec]) -> _Codec:
    def dump(value: Any) -> list[Any]:
        return [item if codec.dump is None else codec.dump(item) for item, codec in zip(value, inner, strict=True)]

    def load(value: Any) -> tuple[Any, ...]:
        return tuple(item if codec.load is None else codec.load(item) for item, codec in zip(value, inner, strict=True))

    return _Codec(f"({','.join(codec.shape for codec in inner)})", dump, load)


def _mapping(key_type: Any, key: _Codec, inner: _Codec, into: Callable[[Any], Any]) -> _Codec:
    dump, load = inner.dump, inner.load
    shape = f"{{{key.shape}:{inner.shape}}}"
    if key_type is str:
        return _Codec(
            shape,
            dict if dump is None else lambda value: {name: dump(item) for name, item in value.items()},
            into if load is None else lambda value: into({name: load(item) for name, item in value.items()}),
        )
    pairs = _fixed([key, inner])
    assert pairs.dump is not None
    assert pairs.load is not None
    write, read = pairs.dump, pairs.load
    return _Codec(shape, lambda value: [write(pair) for pair in value.items()], lambda value: into(read(pair) for pair in value))
