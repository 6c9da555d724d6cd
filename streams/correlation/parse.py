"""Rule documents to rules: all faults at once, each with a code and a JSON pointer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from streams import limits
from streams.correlation.actions import Action, Emit, SignalWorkflow, StartWorkflow, Webhook
from streams.correlation.parse_correlation import CorrelationFields
from streams.correlation.parse_matcher import SEVERITIES, MatcherFields, is_id
from streams.correlation.rules import Rule
from streams.correlation.templates import compile_template, escaped
from streams.errors import InvalidDocument, InvalidInput, Violation
from streams.matching.matchers import Matcher
from streams.records import Json
from streams.topics import COMPOSITES
from streams.webhooks.addresses import target_of
from streams.webhooks.outcomes import OWN_HEADERS

_RULE_FIELDS = ("id", "title", "description", "tags", "enabled", "severity", "events", "correlation", "suppress", "confidence", "actions")
_ACTIONS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # action → (fields that it needs, fields that it may have)
    "start-workflow": (("id",), ("input",)),
    "signal-workflow": (("execution", "name"), ("data",)),
    "webhook": (("url",), ("headers", "body")),
}
#: A token of HTTP (RFC 9110).
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_CONFIDENCE_NAMES = ("count", "value", "span_ms", "events")


def validate(document: Json) -> list[Violation]:
    """Everything that is wrong with the document; empty if it is a rule."""
    return _Reader(document).faults


def parse_rule(document: Json) -> Rule:
    """The rule. Raises `InvalidDocument` (`rule.invalid`) with all faults."""
    reader = _Reader(document)
    if reader.faults or reader.rule is None:
        count = len(reader.faults)
        raise InvalidDocument("rule.invalid", f"The rule has {count} fault{'s' if count > 1 else ''}.", reader.faults)
    return reader.rule


class _Reader(MatcherFields, CorrelationFields):
    """One reading of one document; `rule` is complete only without faults."""

    def __init__(self, document: Json) -> None:
        super().__init__()
        self.rule: Rule | None = None
        if not isinstance(document, dict):
            self.fault("rule.invalid", "", "A rule is an object (a mapping).")
            return
        self._read(document)

    def _read(self, document: dict[str, Any]) -> None:
        self.known(document, _RULE_FIELDS, "")
        rule_id = self._id(document)
        title = self.text(document, "title", "", default="")
        self.text(document, "description", "", default="")
        self.texts(document, "tags", "")
        enabled = self.boolean(document, "enabled", "", default=True)
        severity = self.one_of(document, "severity", "", SEVERITIES, default="warning")
        matchers = self._matchers(document)
        suppress = self.duration(document, "suppress", "", default=0)
        confidence = self._confidence(document)
        actions = self._actions(document)
        correlation = self.section(document, "correlation", "", required=True)
        parts = self.correlation(correlation, {matcher.name: None for matcher in matchers}) if correlation is not None else {}
        if not self.faults:
            self.rule = Rule(
                id=rule_id, title=title, enabled=enabled, severity=severity, matchers=tuple(matchers), suppress_us=suppress * 1000,
                confidence=confidence, actions=tuple(actions), document=document, **parts,
            )  # fmt: skip

    def _id(self, document: Mapping[str, Any]) -> str:
        value = document.get("id")
        if value is None:
            self.fault("rule.field-missing", "/id", "A rule needs an id.")
        elif not is_id(value):
            self.fault("rule.id-invalid", "/id", f"An id has lower-case letters, digits and dashes, at most {limits.ID_CHARACTERS_MAX}.")
        else:
            return str(value)
        return ""

    def _matchers(self, document: Mapping[str, Any]) -> list[Matcher]:
        events = self.section(document, "events", "", required=True)
        if events is not None and not events:
            self.fault("rule.field-missing", "/events", "A rule needs at least one named matcher.")
        return [self.matcher(name, content, f"/events/{escaped(name)}") for name, content in (events or {}).items()]

    def topic_refused(self, topic: str) -> str | None:
        """Composites are read by way of their rule."""
        if topic == COMPOSITES:
            return "Composites are read by the rule that says them: {rule: its-id}."
        return super().topic_refused(topic)

    def _confidence(self, document: Mapping[str, Any]) -> float | str | None:
        value = document.get("confidence")
        if value is None:
            return None
        if isinstance(value, str):
            self.expression(value, "/confidence", names=_CONFIDENCE_NAMES)
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
            self.fault("rule.value-invalid", "/confidence", "confidence is a number above 0 and at most 1, or a CEL expression.")
            return None
        return float(value)

    # --- actions ---

    def _actions(self, document: Mapping[str, Any]) -> list[Action]:
        actions = document.get("actions", [])
        if not isinstance(actions, list):
            self.fault("rule.value-invalid", "/actions", "actions is a list.")
            return []
        if len(actions) > limits.RULE_ACTIONS_MAX:
            self.fault("rule.value-invalid", "/actions", f"A rule has at most {limits.RULE_ACTIONS_MAX} actions.")
        found = [self._action(action, f"/actions/{index}") for index, action in enumerate(actions)]
        return [action for action in found if action is not None]

    def _action(self, action: Any, at: str) -> Action | None:
        if action == "none":
            return None
        name, content = next(iter(action.items())) if isinstance(action, dict) and len(action) == 1 else (None, None)
        match name:
            case "none":
                return None
            case "emit":
                if not isinstance(content, str) or not content:
                    self.fault("rule.value-invalid", f"{at}/emit", "emit is the type of the event.")
                return Emit(type=compile_template(content, f"{at}/emit", self.fault))
            case "start-workflow" | "signal-workflow" | "webhook":
                return self._performed(
                    name, {"url": content} if name == "webhook" and isinstance(content, str) else content, f"{at}/{name}"
                )
            case _:
                self.fault(
                    "rule.value-invalid", at, f"An action is one of emit, {', '.join(_ACTIONS)}, none, e.g. {{emit: order.suspected}}."
                )
                return None

    def _performed(self, name: str, content: Any, at: str) -> Action | None:
        if not isinstance(content, dict):
            self.fault("rule.value-invalid", at, f"{name} is an object (a mapping).")
            return None
        if name == "signal-workflow" and "execution" not in content and "id" in content:
            content = {("execution" if key == "id" else key): value for key, value in content.items()}
        needed, allowed = _ACTIONS[name]
        self.known(content, (*needed, *allowed), at)
        for field in needed:
            self.text(content, field, at, required=True)
        fields = {field: compile_template(content.get(field), f"{at}/{field}", self.fault) for field in (*needed, *allowed)}
        match name:
            case "start-workflow":
                return StartWorkflow(id=fields["id"], input={} if fields["input"] is None else fields["input"])
            case "signal-workflow":
                return SignalWorkflow(execution=fields["execution"], name=fields["name"], data=fields["data"])
            case _:
                self._webhook_headers(self.section(content, "headers", at) or {}, f"{at}/headers")
                self._webhook_url(fields["url"], f"{at}/url")
                return Webhook(url=fields["url"], headers=fields["headers"] or {}, body=fields["body"])

    def _webhook_url(self, url: Any, at: str) -> None:
        """A URL without templates is checked at once. Which addresses may be called is for the workers to know."""
        if isinstance(url, str) and url and "{{" not in url:
            try:
                target_of(url)
            except InvalidInput as error:
                self.fault(error.code, at, error.message)

    def _webhook_headers(self, headers: Mapping[str, Any], at: str) -> None:
        for name in headers:
            self.text(headers, name, at)
            if not _HEADER.fullmatch(name) or name.lower() in OWN_HEADERS:
                self.fault("rule.value-invalid", f"{at}/{escaped(name)}", f"{name[:60]!r} is no header that a webhook can have of a rule.")
