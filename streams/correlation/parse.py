"""Rule documents to rules: all faults at once, each with a code and a JSON pointer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from streams import limits
from streams.correlation.rules import TYPES, Condition, Rule
from streams.durations import parse_duration_ms
from streams.errors import InvalidDocument, InvalidInput, Violation
from streams.matching.expressions import compiled
from streams.matching.matchers import Matcher
from streams.matching.paths import compile_path
from streams.records import Json
from streams.topics import BY_NAME, COMPOSITES

#: Types that run in this version; the others are refused with `rule.type-unsupported`.
RUNNING = frozenset({"event_count"})
#: Windows that run in this version.
RUNNING_WINDOWS = frozenset({"sliding"})

_SEVERITIES = ("debug", "info", "warning", "error", "critical")
_ID = re.compile(r"[a-z0-9][a-z0-9-]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_TESTS = ("gt", "gte", "lt", "lte", "eq", "neq")
_WINDOWED = ("event_count", "value_count", "value_sum", "value_avg", "value_min", "value_max", "value_percentile", "rate_change")
_WITH_FIELD = ("value_count", "value_sum", "value_avg", "value_min", "value_max", "value_percentile")
_RULE_FIELDS = ("id", "title", "description", "tags", "enabled", "severity", "events", "correlation", "suppress", "confidence", "actions")
_MATCHER_FIELDS = ("topic", "type", "source", "subject", "severity", "rule", "where")
_CORRELATION_FIELDS = (
    "type", "events", "group-by", "timespan", "condition", "window", "gap", "grace", "aliases", "until", "after-match", "output",
)  # fmt: skip
_CONDITION_FIELDS = (*_TESTS, "field", "percentile", "baseline", "threshold")
_ACTIONS = ("emit", "start-workflow", "signal-workflow", "webhook", "none")
_GRACE_DEFAULT_MS = 10_000


def validate(document: Json) -> list[Violation]:
    """Everything that is wrong with the document; empty if it is a rule that this version runs."""
    return _Reader(document).faults


def parse_rule(document: Json) -> Rule:
    """The rule. Raises `InvalidDocument` (`rule.invalid`) with all faults."""
    reader = _Reader(document)
    if reader.faults or reader.rule is None:
        count = len(reader.faults)
        raise InvalidDocument("rule.invalid", f"The rule has {count} fault{'s' if count > 1 else ''}.", reader.faults)
    return reader.rule


class _Reader:
    """One reading of one document: collects faults and what is good; `rule` is complete only without faults."""

    def __init__(self, document: Json) -> None:
        self.faults: list[Violation] = []
        self.rule: Rule | None = None
        if not isinstance(document, dict):
            self._fault("rule.invalid", "", "A rule is an object (a mapping).")
            return
        self._document = document
        self._read(document)

    def _read(self, document: dict[str, Any]) -> None:
        self._known(document, _RULE_FIELDS, "")
        rule_id = self._id(document)
        title = self._text(document, "title", "", default="")
        self._text(document, "description", "", default="")
        self._texts(document, "tags", "")
        enabled = self._boolean(document, "enabled", "", default=True)
        severity = self._one_of(document, "severity", "", _SEVERITIES, default="warning")
        matchers = self._matchers(document)
        suppress = self._duration(document, "suppress", "", default=0)
        confidence = self._confidence(document)
        self._actions(document)
        correlation = self._section(document, "correlation", "", required=True)
        parts = self._correlation(correlation, {matcher.name for matcher in matchers}) if correlation is not None else {}
        if not self.faults:
            self.rule = Rule(
                id=rule_id, title=title, enabled=enabled, severity=severity, matchers=tuple(matchers), suppress_us=suppress * 1000,
                confidence=confidence, document=document, **parts,
            )  # fmt: skip

    # --- parts of the document ---

    def _id(self, document: Mapping[str, Any]) -> str:
        value = document.get("id")
        if value is None:
            self._fault("rule.field-missing", "/id", "A rule needs an id.")
        elif not isinstance(value, str) or not _ID.fullmatch(value) or len(value) > limits.ID_CHARACTERS_MAX:
            self._fault("rule.id-invalid", "/id", f"An id has lower-case letters, digits and dashes, at most {limits.ID_CHARACTERS_MAX}.")
        else:
            return value
        return ""

    def _matchers(self, document: Mapping[str, Any]) -> list[Matcher]:
        events = self._section(document, "events", "", required=True)
        if events is not None and not events:
            self._fault("rule.field-missing", "/events", "A rule needs at least one named matcher.")
        return [self._matcher(name, content, f"/events/{_escaped(name)}") for name, content in (events or {}).items()]

    def _matcher(self, name: Any, content: Any, at: str) -> Matcher:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > limits.ID_CHARACTERS_MAX:
            self._fault("rule.value-invalid", at, "A matcher's name begins with a letter and has letters, digits, - and _.")
            name = str(name)
        if not isinstance(content, dict):
            self._fault("rule.value-invalid", at, "A matcher is an object, e.g. {type: order.failed}.")
            return Matcher(name=name)
        self._known(content, _MATCHER_FIELDS, at)
        if "rule" in content:
            self._fault("rule.type-unsupported", f"{at}/rule", "Matching the composites of another rule does not run in this version.")
        where = self._text(content, "where", at)
        if where is not None:
            self._expression(where, f"{at}/where")
        severities = self._texts(content, "severity", at)
        for index, severity in enumerate(severities or ()):
            if severity not in _SEVERITIES:
                self._fault(
                    "rule.value-invalid", f"{at}/severity/{index}", f"{severity!r} is no severity: one of {', '.join(_SEVERITIES)}."
                )
        topics = self._texts(content, "topic", at)
        for topic in topics or ():
            if (
                topic == COMPOSITES
                or topic.startswith(("mplp.internal.", "mplp.control."))
                or (topic in BY_NAME and not BY_NAME[topic].records)
            ):
                self._fault("rule.topic-refused", f"{at}/topic", f"Rules cannot read {topic}.")
        return Matcher(
            name=name, where=where, severities=severities, topics=topics,
            types=self._texts(content, "type", at),
            sources=self._texts(content, "source", at), subjects=self._texts(content, "subject", at),
        )  # fmt: skip

    def _correlation(self, content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
        at = "/correlation"
        self._known(content, _CORRELATION_FIELDS, at)
        kind = self._one_of(content, "type", at, TYPES, default=None, required=True, code="rule.type-unknown")
        if kind is not None and kind not in RUNNING:
            self._fault(
                "rule.type-unsupported", f"{at}/type", f"{kind} does not run in this version (it runs: {', '.join(sorted(RUNNING))})."
            )
        windowed = kind in _WINDOWED
        window = self._one_of(content, "window", at, ("sliding", "tumbling", "session"), default="sliding")
        if kind in RUNNING and window not in RUNNING_WINDOWS:
            self._fault("rule.type-unsupported", f"{at}/window", f"{window} windows do not run in this version.")
        timespan = self._duration(content, "timespan", at, default=0, least=1, most=limits.TIMESPAN_MS_MAX, required=window != "session")
        gap = self._duration(content, "gap", at, default=0, least=1, most=limits.TIMESPAN_MS_MAX, required=windowed and window == "session")
        grace = self._duration(content, "grace", at, default=_GRACE_DEFAULT_MS, most=limits.TIMESPAN_MS_MAX)
        aliases = self._aliases(content, names)
        condition = self._condition(content, kind, required=windowed)
        if windowed and window == "sliding" and not condition.only_lower_bounds:
            self._fault(
                "rule.condition-window",
                f"{at}/condition",
                "Sliding windows are judged at each record, so only gt and gte have a meaning there.",
            )
        return {
            "type": kind, "names": self._names(content, names), "group_by": self._group_by(content, names, aliases), "aliases": aliases,
            "condition": condition, "window": window, "timespan_us": timespan * 1000, "gap_us": gap * 1000, "grace_us": grace * 1000,
            "after_match": self._one_of(content, "after-match", at, ("reset", "continue"), default="reset"),
            "output": self._one_of(content, "output", at, ("eager", "final"), default="eager"),
        }  # fmt: skip

    def _names(self, content: Mapping[str, Any], names: Collection[str]) -> tuple[str, ...]:
        given = content.get("events")
        if given is None:
            return tuple(names)
        if isinstance(given, str):
            given = [given]
        if not isinstance(given, list) or not given:
            self._fault("rule.value-invalid", "/correlation/events", "events is a list of names of matchers.")
            return ()
        found: list[str] = []
        for index, item in enumerate(given):
            name = item
            if isinstance(item, dict):
                name = item.get("event", item.get("not"))
            if not isinstance(name, str):
                self._fault("rule.value-invalid", f"/correlation/events/{index}", "An element is the name of a matcher.")
            elif name not in names:
                self._fault("rule.event-unknown", f"/correlation/events/{index}", f"There is no matcher {name!r}.")
            else:
                found.append(name)
        return tuple(dict.fromkeys(found))

    def _group_by(self, content: Mapping[str, Any], names: Collection[str], aliases: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
        paths = self._texts(content, "group-by", "/correlation") or ()
        for index, path in enumerate(paths):
            if path not in aliases:
                self._path(path, f"/correlation/group-by/{index}")
        if len(set(paths)) != len(paths):
            self._fault("rule.value-invalid", "/correlation/group-by", "group-by names something twice.")
        return paths

    def _aliases(self, content: Mapping[str, Any], names: Collection[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for alias, paths in (self._section(content, "aliases", "/correlation") or {}).items():
            at = f"/correlation/aliases/{_escaped(alias)}"
            if not isinstance(paths, dict):
                self._fault("rule.value-invalid", at, "An alias says for each matcher which path it means.")
                continue
            for name, path in paths.items():
                if name not in names:
                    self._fault("rule.event-unknown", f"{at}/{_escaped(name)}", f"There is no matcher {name!r}.")
                if not isinstance(path, str):
                    self._fault("rule.value-invalid", f"{at}/{_escaped(name)}", "A path is a text.")
                else:
                    self._path(path, f"{at}/{_escaped(name)}")
            found[str(alias)] = {str(name): str(path) for name, path in paths.items()}
        return found

    def _condition(self, content: Mapping[str, Any], kind: str | None, *, required: bool) -> Condition:
        at = "/correlation/condition"
        condition = self._section(content, "condition", "/correlation", required=required)
        if condition is None:
            return Condition()
        self._known(condition, _CONDITION_FIELDS, at)
        tests = [(name, number) for name in _TESTS if (number := self._number(condition, name, at)) is not None]
        if required and not tests and not any(name in condition for name in _TESTS):
            self._fault("rule.field-missing", at, f"A condition needs one of {', '.join(_TESTS)}.")
        field = self._text(condition, "field", at, required=kind in _WITH_FIELD)
        if field is not None:
            self._path(field, f"{at}/field")
        percentile = self._number(condition, "percentile", at)
        if percentile is not None and not 0 <= percentile <= 100:
            self._fault("rule.value-invalid", f"{at}/percentile", "A percentile is between 0 and 100.")
        return Condition(tests=tuple(tests), field=field, percentile=percentile)

    def _confidence(self, document: Mapping[str, Any]) -> float | str | None:
        value = document.get("confidence")
        if value is None:
            return None
        if isinstance(value, str):
            self._expression(value, "/confidence")
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
            self._fault("rule.value-invalid", "/confidence", "confidence is a number above 0 and at most 1, or a CEL expression.")
            return None
        return float(value)

    def _actions(self, document: Mapping[str, Any]) -> None:
        actions = document.get("actions", [])
        if not isinstance(actions, list):
            self._fault("rule.value-invalid", "/actions", "actions is a list.")
            return
        for index, action in enumerate(actions):
            at = f"/actions/{index}"
            name = (
                action if isinstance(action, str) else next(iter(action), None) if isinstance(action, dict) and len(action) == 1 else None
            )
            if name not in _ACTIONS:
                self._fault("rule.value-invalid", at, f"An action is one of {', '.join(_ACTIONS)}.")
            elif name != "none":
                self._fault(
                    "rule.action-unsupported",
                    at,
                    f"The action {name} does not run in this version; the composite is always on {COMPOSITES}.",
                )

    # --- small readers: a fault and a harmless value, or the value ---

    def _fault(self, code: str, pointer: str, message: str) -> None:
        self.faults.append(Violation(code=code, pointer=pointer, message=message))

    def _known(self, content: Mapping[Any, Any], known: Collection[str], at: str) -> None:
        for name in content:
            if name not in known:
                self._fault("rule.field-unknown", f"{at}/{_escaped(name)}", f"There is no field {name!r} here; known: {', '.join(known)}.")

    def _section(self, content: Mapping[str, Any], name: str, at: str, *, required: bool = False) -> dict[str, Any] | None:
        value = content.get(name)
        if isinstance(value, dict):
            return value
        if value is not None:
            self._fault("rule.value-invalid", f"{at}/{name}", f"{name} is an object (a mapping).")
        elif required:
            self._fault("rule.field-missing", f"{at}/{name}", f"{name} is missing.")
        return None

    def _text(self, content: Mapping[str, Any], name: str, at: str, *, default: Any = None, required: bool = False) -> Any:
        value = content.get(name)
        if value is None:
            if required:
                self._fault("rule.field-missing", f"{at}/{name}", f"{name} is missing.")
            return default
        if not isinstance(value, str):
            self._fault("rule.value-invalid", f"{at}/{name}", f"{name} is a text.")
            return default
        return value

    def _texts(self, content: Mapping[str, Any], name: str, at: str) -> tuple[str, ...] | None:
        value = content.get(name)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        wrong = [
            index for index, item in enumerate(values) if not isinstance(item, str) or not item or len(item) > limits.NAME_CHARACTERS_MAX
        ]
        for index in wrong:
            self._fault(
                "rule.value-invalid", f"{at}/{name}/{index}" if values is value else f"{at}/{name}", f"{name} has texts, not empty."
            )
        if not values:
            self._fault("rule.value-invalid", f"{at}/{name}", f"{name} is empty.")
        return tuple(item for item in values if isinstance(item, str))

    def _boolean(self, content: Mapping[str, Any], name: str, at: str, *, default: bool) -> bool:
        value = content.get(name, default)
        if not isinstance(value, bool):
            self._fault("rule.value-invalid", f"{at}/{name}", f"{name} is true or false.")
            return default
        return value

    def _one_of(
        self, content: Mapping[str, Any], name: str, at: str, values: Collection[str], *,
        default: Any, required: bool = False, code: str = "rule.value-invalid",
    ) -> Any:  # fmt: skip
        value = content.get(name)
        if value is None:
            if required:
                self._fault("rule.field-missing", f"{at}/{name}", f"{name} is missing.")
            return default
        if not isinstance(value, str) or value not in values:
            self._fault(code, f"{at}/{name}", f"{name} is one of {', '.join(values)}.")
            return default
        return value

    def _number(self, content: Mapping[str, Any], name: str, at: str) -> float | None:
        value = content.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            self._fault("rule.value-invalid", f"{at}/{name}", f"{name} is a number.")
            return None
        return value

    def _duration(
        self, content: Mapping[str, Any], name: str, at: str, *,
        default: int, least: int = 0, most: int | None = None, required: bool = False,
    ) -> int:  # fmt: skip
        value = content.get(name)
        if value is None:
            if required:
                self._fault("rule.field-missing", f"{at}/{name}", f"{name} is missing.")
            return default
        milliseconds: int | None = self._checked(lambda: parse_duration_ms(value), f"{at}/{name}")
        if milliseconds is None:
            return default
        if milliseconds < least or (most is not None and milliseconds > most):
            self._fault("rule.duration-range", f"{at}/{name}", f"{name} is at least {least} ms and at most 30 d.")
            return default
        return milliseconds

    def _expression(self, text: str, at: str) -> None:
        self._checked(lambda: compiled(text, numbers_alike=True), at)

    def _path(self, text: str, at: str) -> None:
        self._checked(lambda: compile_path(text), at)

    def _checked(self, make: Callable[[], Any], at: str) -> Any:
        try:
            return make()
        except InvalidInput as error:
            self._fault(error.code, at, error.message)
            return None


def _escaped(name: Any) -> str:
    """A part of a JSON pointer (RFC 6901)."""
    return str(name).replace("~", "~0").replace("/", "~1")
