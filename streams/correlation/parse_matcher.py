"""The matcher of a document: conditions on one record, of rules and of routes alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from streams import limits
from streams.correlation.reading import Fields
from streams.matching.matchers import Matcher
from streams.topics import BY_NAME, TOPIC_NAME

SEVERITIES = ("debug", "info", "warning", "error", "critical")
_ID = re.compile(r"[a-z0-9][a-z0-9-]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_MATCHER_FIELDS = ("topic", "type", "source", "subject", "severity", "rule", "where")


class MatcherFields(Fields):
    """Reads matchers."""

    def topic_refused(self, topic: str) -> str | None:
        """Why the records of a topic cannot be matched, a sentence; None: they can."""
        if not TOPIC_NAME.fullmatch(topic):
            return f"{topic[:60]!r} is no name of a topic: it has letters, digits, dots, dashes and underscores, at most 249; no pattern."
        if topic.startswith(("mplp.internal.", "mplp.control.")) or (topic in BY_NAME and not BY_NAME[topic].records):
            return f"{topic} has no records that could be matched."
        return None

    def matcher(self, name: Any, content: Any, at: str) -> Matcher:
        """The matcher under a name."""
        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > limits.ID_CHARACTERS_MAX:
            self.fault("rule.value-invalid", at, "A matcher's name begins with a letter and has letters, digits, - and _.")
            name = str(name)
        if not isinstance(content, dict):
            self.fault("rule.value-invalid", at, "A matcher is an object, e.g. {type: order.failed}.")
            return Matcher(name=name)
        self.known(content, _MATCHER_FIELDS, at)
        where = self.text(content, "where", at)
        if where is not None:
            self.expression(where, f"{at}/where")
        severities = self.texts(content, "severity", at)
        for index, severity in enumerate(severities or ()):
            if severity not in SEVERITIES:
                self.fault("rule.value-invalid", f"{at}/severity/{index}", f"{severity!r} is no severity: one of {', '.join(SEVERITIES)}.")
        rules = self.texts(content, "rule", at)
        for rule in rules or ():
            if not is_id(rule):
                self.fault("rule.value-invalid", f"{at}/rule", f"{rule[:60]!r} is no id of a rule.")
        if rules is not None and content.get("topic") is not None:
            self.fault("rule.option-refused", f"{at}/topic", "The composites of a rule are in one topic; leave topic out.")
        return Matcher(
            name=name, where=where, severities=severities, rules=rules, topics=self._topics(content, at),
            types=self.texts(content, "type", at), sources=self.texts(content, "source", at), subjects=self.texts(content, "subject", at),
        )  # fmt: skip

    def _topics(self, content: Mapping[str, Any], at: str) -> tuple[str, ...] | None:
        topics = self.texts(content, "topic", at)
        for topic in topics or ():
            why = self.topic_refused(topic)
            if why is not None:
                self.fault("rule.topic-refused", f"{at}/topic", f"It cannot be read here: {why}")
        return topics


def is_id(value: Any) -> bool:
    """Whether the value may be the id of a rule or route."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None and len(value) <= limits.ID_CHARACTERS_MAX
