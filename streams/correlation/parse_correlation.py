"""The `correlation` part of a rule: which options each type takes, and what they mean."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from streams import limits
from streams.correlation.reading import Fields
from streams.correlation.rules import THRESHOLD_DEFAULT, TYPES, WINDOWED, WITH_FIELD, Condition, Step
from streams.correlation.templates import escaped

_TESTS = ("gt", "gte", "lt", "lte", "eq", "neq")
_FIELDS = (
    "type", "events", "group-by", "timespan", "condition", "window", "gap", "grace", "aliases", "until", "after-match", "output",
)  # fmt: skip
_CONDITION_FIELDS = (*_TESTS, "field", "percentile", "baseline", "threshold")
_GRACE_DEFAULT_MS = 10_000
#: Windows that `rate_change` may compare with.
_BASELINE_MAX = 10_000
#: Records of a sequence: each costs a step for every record.
_STEPS_MAX = 100


class CorrelationFields(Fields):
    """Reads the `correlation` part."""

    def correlation(self, content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
        """The fields of `Rule` that it gives."""
        at = "/correlation"
        self.known(content, _FIELDS, at)
        kind = self.one_of(content, "type", at, TYPES, default=None, required=True, code="rule.type-unknown")
        window = self._window(content, kind)
        condition = self._condition(content, kind, window)
        alone = kind == "anomaly" and condition.field is not None and content.get("window") is None  # each value by itself
        spanned = window != "session" and not alone
        timespan = self.duration(content, "timespan", at, default=0, least=1, most=limits.TIMESPAN_MS_MAX, required=spanned)
        gap = self.duration(content, "gap", at, default=0, least=1, most=limits.TIMESPAN_MS_MAX, required=window == "session")
        if window != "session" and content.get("gap") is not None:
            self.fault("rule.option-refused", f"{at}/gap", "gap belongs to session windows.")
        grace = self.duration(content, "grace", at, default=_GRACE_DEFAULT_MS, most=limits.TIMESPAN_MS_MAX)
        aliases = self._aliases(content, names)
        after_match = self.one_of(content, "after-match", at, ("reset", "continue"), default="reset")
        return {
            "type": kind, **self._events(content, kind, names), "group_by": self._group_by(content, aliases), "aliases": aliases,
            "condition": condition, "window": window, "timespan_us": timespan * 1000, "gap_us": gap * 1000, "grace_us": grace * 1000,
            "after_match": after_match, "output": self.one_of(content, "output", at, ("eager", "final"), default="eager"),
        }  # fmt: skip

    def _window(self, content: dict[str, Any], kind: str | None) -> str:
        at = "/correlation/window"
        window: str | None = self.one_of(content, "window", "/correlation", ("sliding", "tumbling", "session"), default=None)
        if kind == "anomaly":
            if window not in (None, "tumbling"):
                self.fault("rule.window-refused", at, "anomaly judges each record, or tumbling windows of timespan.")
            return "tumbling"
        if window is not None and kind is not None and kind not in WINDOWED:
            self.fault("rule.option-refused", at, f"{kind} has no windows; its timespan says how far records may be apart.")
            return "sliding"
        if kind == "rate_change":
            if window not in (None, "tumbling"):
                self.fault("rule.window-refused", at, "rate_change compares tumbling windows.")
            return "tumbling"
        return window or "sliding"

    # --- events ---

    def _events(self, content: Mapping[str, Any], kind: str | None, names: Collection[str]) -> dict[str, Any]:
        at = "/correlation/events"
        given = content.get("events")
        if given is None:
            given = list(names)
        elif isinstance(given, str):
            given = [given]
        elif not isinstance(given, list) or not given:
            self.fault("rule.value-invalid", at, "events is a list of names of matchers.")
            given = []
        until = self._until(content, kind, names)
        if kind == "temporal_ordered":
            return self._sequence(given, names, until)
        found = [name for index, item in enumerate(given) if (name := self._name(item, f"{at}/{index}", names)) is not None]
        if kind == "absence" and len(given) > 2:
            self.fault("rule.value-invalid", at, "absence has one or two events: [a] or [a, b].")
        return {"names": tuple(dict.fromkeys(found))}

    def _name(self, item: Any, at: str, names: Collection[str]) -> str | None:
        if not isinstance(item, str):
            self.fault("rule.value-invalid", at, "An element is the name of a matcher.")
        elif item not in names:
            self.fault("rule.event-unknown", at, f"There is no matcher {item!r}.")
        else:
            return item
        return None

    def _until(self, content: Mapping[str, Any], kind: str | None, names: Collection[str]) -> str | None:
        until = content.get("until")
        if until is None:
            return None
        if kind is not None and kind != "temporal_ordered":
            self.fault("rule.option-refused", "/correlation/until", "until belongs to temporal_ordered.")
            return None
        return self._name(until, "/correlation/until", names)

    def _sequence(self, given: list[Any], names: Collection[str], until: str | None) -> dict[str, Any]:
        at = "/correlation/events"
        steps: list[Step] = []
        barred: set[str] = set()
        for index, item in enumerate(given):
            here = f"{at}/{index}"
            if isinstance(item, dict) and set(item) == {"not"}:
                if not steps:
                    self.fault("rule.value-invalid", here, "{not} is not first: it says what does not happen after an event.")
                name = self._name(item["not"], f"{here}/not", names)
                barred |= set() if name is None else {name}
                continue
            step = self._step(item, here, names)
            if step is None:
                continue
            name, times = step
            steps += [Step(name=name, barred=frozenset(barred)), *[Step(name=name)] * (times - 1)]
            barred = set()
        if len(steps) > _STEPS_MAX:
            self.fault("rule.value-invalid", at, f"A sequence has at most {_STEPS_MAX} records, times included.")
        found = [name for step in steps for name in (*sorted(step.barred), step.name)]
        found += [*sorted(barred), *([until] if until is not None else [])]
        return {"names": tuple(dict.fromkeys(found)), "steps": tuple(steps), "barred_last": frozenset(barred), "until": until}

    def _step(self, item: Any, at: str, names: Collection[str]) -> tuple[str, int] | None:
        times: int | None = 1
        if isinstance(item, dict) and "event" in item:
            self.known(item, ("event", "times"), at)
            if item.get("times") is not None:
                times = self.whole(item, "times", at, least=1, most=_STEPS_MAX)
            item, at = item["event"], f"{at}/event"
        elif isinstance(item, dict):
            self.fault("rule.value-invalid", at, "An element is a name, {event: name, times: 3} or {not: name}.")
            return None
        name = self._name(item, at, names)
        return None if name is None or times is None else (name, times)

    # --- groups ---

    def _group_by(self, content: Mapping[str, Any], aliases: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
        paths = self.texts(content, "group-by", "/correlation") or ()
        for index, path in enumerate(paths):
            if path not in aliases:
                self.path(path, f"/correlation/group-by/{index}")
        if len(set(paths)) != len(paths):
            self.fault("rule.value-invalid", "/correlation/group-by", "group-by names something twice.")
        return paths

    def _aliases(self, content: Mapping[str, Any], names: Collection[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for alias, paths in (self.section(content, "aliases", "/correlation") or {}).items():
            at = f"/correlation/aliases/{escaped(alias)}"
            if not isinstance(paths, dict):
                self.fault("rule.value-invalid", at, "An alias says for each matcher which path it means.")
                continue
            for name, path in paths.items():
                if name not in names:
                    self.fault("rule.event-unknown", f"{at}/{escaped(name)}", f"There is no matcher {name!r}.")
                if not isinstance(path, str):
                    self.fault("rule.value-invalid", f"{at}/{escaped(name)}", "A path is a text.")
                else:
                    self.path(path, f"{at}/{escaped(name)}")
            found[str(alias)] = {str(name): str(path) for name, path in paths.items()}
        return found

    # --- condition ---

    def _condition(self, content: Mapping[str, Any], kind: str | None, window: str) -> Condition:
        at = "/correlation/condition"
        windowed = kind in WINDOWED
        condition = self.section(content, "condition", "/correlation", required=windowed)
        if condition is None:
            return Condition(threshold=THRESHOLD_DEFAULT if kind == "anomaly" else None)
        if kind is not None and not windowed and kind != "anomaly":
            self.fault("rule.option-refused", at, f"{kind} has no condition: its events and timespan say it all.")
            return Condition()
        self.known(condition, _CONDITION_FIELDS, at)
        tests = [(name, number) for name in _TESTS if (number := self.number(condition, name, at)) is not None]
        if windowed and not any(condition.get(name) is not None for name in _TESTS):
            self.fault("rule.field-missing", at, f"A condition needs one of {', '.join(_TESTS)}.")
        if kind == "anomaly" and tests:
            self.fault("rule.option-refused", at, "anomaly is tested with threshold alone.")
        found = Condition(tests=tuple(tests), **self._measured(condition, kind))
        if windowed and window == "sliding" and not found.only_lower_bounds:
            message = "Sliding windows are judged at each record, so only gt and gte have a meaning there."
            self.fault("rule.condition-window", at, message)
        return found

    def _measured(self, condition: Mapping[str, Any], kind: str | None) -> dict[str, Any]:
        at = "/correlation/condition"
        if kind is not None:
            of = {
                "field": kind in WITH_FIELD or kind == "anomaly",
                "percentile": kind == "value_percentile",
                "baseline": kind == "rate_change",
                "threshold": kind == "anomaly",
            }
            for name, fits in of.items():
                if condition.get(name) is not None and not fits:
                    self.fault("rule.option-refused", f"{at}/{name}", f"{kind} has no {name}.")
        field = self.text(condition, "field", at, required=kind in WITH_FIELD)
        if field is not None:
            self.path(field, f"{at}/field")
        percentile = self.number(condition, "percentile", at)
        if kind == "value_percentile" and condition.get("percentile") is None:
            self.fault("rule.field-missing", f"{at}/percentile", "percentile is missing.")
        elif percentile is not None and not 0 <= percentile <= 100:
            self.fault("rule.value-invalid", f"{at}/percentile", "A percentile is between 0 and 100.")
        baseline = self.whole(condition, "baseline", at, least=1, most=_BASELINE_MAX, required=kind == "rate_change")
        threshold = self.number(condition, "threshold", at)
        if threshold is not None and not 0 < threshold < 1:
            self.fault("rule.value-invalid", f"{at}/threshold", "threshold is a score: above 0 and below 1, e.g. 0.99.")
        if threshold is None and kind == "anomaly":
            threshold = THRESHOLD_DEFAULT
        return {"field": field, "percentile": percentile, "baseline": baseline, "threshold": threshold}
