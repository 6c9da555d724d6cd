"""Reading the fields of a document: a fault is noted with code and pointer, and reading goes on with a harmless value."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from streams import limits
from streams.correlation.templates import escaped
from streams.durations import format_duration, parse_duration_ms
from streams.errors import InvalidInput, Violation
from streams.matching.expressions import Expression, compiled
from streams.matching.paths import compile_path
from streams.matching.reading import bound_names

_MOST = sys.float_info.max


class Fields:
    """One reading of one document: collects faults. Each reader gives the value, or a harmless one and a fault."""

    def __init__(self) -> None:
        self.faults: list[Violation] = []

    def fault(self, code: str, pointer: str, message: str) -> None:
        """Notes a fault."""
        self.faults.append(Violation(code=code, pointer=pointer, message=message))

    def known(self, content: Mapping[Any, Any], known: Collection[str], at: str) -> None:
        """Notes every field that is not known."""
        for name in content:
            if name not in known:
                self.fault("rule.field-unknown", f"{at}/{escaped(name)}", f"There is no field {name!r} here; known: {', '.join(known)}.")

    def section(self, content: Mapping[str, Any], name: str, at: str, *, required: bool = False) -> dict[str, Any] | None:
        """The object under a name."""
        value = content.get(name)
        if isinstance(value, dict):
            return value
        if value is not None:
            self.fault("rule.value-invalid", f"{at}/{name}", f"{name} is an object (a mapping).")
        elif required:
            self.fault("rule.field-missing", f"{at}/{name}", f"{name} is missing.")
        return None

    def text(self, content: Mapping[str, Any], name: str, at: str, *, default: Any = None, required: bool = False) -> Any:
        """The text under a name."""
        value = content.get(name)
        if value is None:
            if required:
                self.fault("rule.field-missing", f"{at}/{name}", f"{name} is missing.")
            return default
        if not isinstance(value, str):
            self.fault("rule.value-invalid", f"{at}/{name}", f"{name} is a text.")
            return default
        return value

    def texts(self, content: Mapping[str, Any], name: str, at: str) -> tuple[str, ...] | None:
        """The texts under a name: one, or a list of them; none is empty."""
        value = content.get(name)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        wrong = [
            index for index, item in enumerate(values) if not isinstance(item, str) or not item or len(item) > limits.NAME_CHARACTERS_MAX
        ]
        for index in wrong:
            self.fault("rule.value-invalid", f"{at}/{name}/{index}" if values is value else f"{at}/{name}", f"{name} has texts, not empty.")
        if not values:
            self.fault("rule.value-invalid", f"{at}/{name}", f"{name} is empty.")
        return tuple(item for item in values if isinstance(item, str))

    def boolean(self, content: Mapping[str, Any], name: str, at: str, *, default: bool) -> bool:
        """The truth value under a name."""
        value = content.get(name, default)
        if not isinstance(value, bool):
            self.fault("rule.value-invalid", f"{at}/{name}", f"{name} is true or false.")
            return default
        return value

    def one_of(
        self, content: Mapping[str, Any], name: str, at: str, values: Collection[str], *,
        default: Any, required: bool = False, code: str = "rule.value-invalid",
    ) -> Any:  # fmt: skip
        """The text under a name, which is one of `values`."""
        value = content.get(name)
        if value is None:
            if required:
                self.fault("rule.field-missing", f"{at}/{name}", f"{name} is missing.")
            return default
        if not isinstance(value, str) or value not in values:
            self.fault(code, f"{at}/{name}", f"{name} is one of {', '.join(values)}.")
            return default
        return value

    def number(self, content: Mapping[str, Any], name: str, at: str) -> float | None:
        """The finite number under a name."""
        value = content.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_MOST <= value <= _MOST:
            self.fault("rule.value-invalid", f"{at}/{name}", f"{name} is a number.")
            return None
        return value

    def duration(
        self, content: Mapping[str, Any], name: str, at: str, *,
        default: int, least: int = 0, most: int | None = None, required: bool = False,
    ) -> int:  # fmt: skip
        """The duration under a name, milliseconds, between `least` and `most`."""
        value = content.get(name)
        if value is None:
            if required:
                self.fault("rule.field-missing", f"{at}/{name}", f"{name} is missing.")
            return default
        milliseconds: int | None = self.checked(lambda: parse_duration_ms(value), f"{at}/{name}")
        if milliseconds is None:
            return default
        if milliseconds < least or (most is not None and milliseconds > most):
            at_most = "" if most is None else f" and at most {format_duration(most)}"
            self.fault("rule.duration-range", f"{at}/{name}", f"{name} is at least {least} ms{at_most}.")
            return default
        return milliseconds

    def whole(self, content: Mapping[str, Any], name: str, at: str, *, least: int, most: int, required: bool = False) -> int | None:
        """The whole number under a name, between `least` and `most`."""
        value = self.number(content, name, at)
        if value is None:
            if required and content.get(name) is None:
                self.fault("rule.field-missing", f"{at}/{name}", f"{name} is missing.")
            return None
        if value != int(value) or not least <= value <= most:
            self.fault("rule.value-invalid", f"{at}/{name}", f"{name} is a whole number from {least} to {most}.")
            return None
        return int(value)

    def expression(self, text: str, at: str, *, names: Collection[str] | None = None) -> None:
        """Checks that a text is CEL and, if `names` are given, that it reads nothing else."""
        expression: Expression | None = self.checked(lambda: compiled(text, numbers_alike=True), at)
        if expression is None or names is None:
            return
        unknown = expression.variables - frozenset(names) - bound_names(text)
        if unknown:
            self.fault("expression.unknown-name", at, f"There is no {', '.join(sorted(unknown))} here; known: {', '.join(names)}.")

    def path(self, text: str, at: str) -> None:
        """Checks that a text is a path."""
        self.checked(lambda: compile_path(text), at)

    def checked(self, make: Callable[[], Any], at: str) -> Any:
        """What `make` gives; None and a fault if it raises `InvalidInput`."""
        try:
            return make()
        except InvalidInput as error:
            self.fault(error.code, at, error.message)
            return None
