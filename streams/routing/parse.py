"""Route documents to routes: all faults at once, each with a code and a JSON pointer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from streams import limits
from streams.correlation.parse_matcher import MatcherFields, is_id
from streams.correlation.templates import escaped
from streams.errors import InvalidDocument, Violation
from streams.matching.matchers import Matcher
from streams.matching.paths import Path, compile_path
from streams.operations import CONTRACT
from streams.records import Json
from streams.routing.parse_retry import RetryFields
from streams.routing.routes import (
    Destination,
    DropFields,
    MapFields,
    RenameFields,
    Route,
    SetFields,
    ToModule,
    ToTopic,
    ToWebhook,
    Transform,
)
from streams.topics import BY_NAME, DEAD_LETTER_SUFFIX, RETRY_SUFFIX, SYSTEM_EVENTS, TOPIC_NAME
from streams.webhooks.addresses import target_of
from streams.webhooks.outcomes import OWN_HEADERS

_FIELDS = (
    "id", "title", "description", "tags", "enabled", "match", "filters", "transforms", "destination", "retry", "order", "dead-letter",
)  # fmt: skip
_TRANSFORMS = ("set", "rename", "drop", "map")
_DESTINATIONS = ("topic", "module", "webhook")
#: Fields of the record that a transform may give a value. `id` and `causation_id` say where it comes from.
SETTABLE = frozenset({"type", "source", "subject", "time", "tenant", "correlation_id", "severity", "data"})
#: Fields that a transform may take away: they have a default.
DROPPABLE = frozenset({"source", "subject", "tenant", "correlation_id", "severity", "data"})
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_MODULE = re.compile(r"[a-z0-9][a-z0-9-]*")
_FILTERS_MAX, _TRANSFORMS_MAX, _PATHS_MAX = 50, 50, 200


def validate(document: Json) -> list[Violation]:
    """Everything that is wrong with the document; empty if it is a route."""
    return _Reader(document).faults


def parse_route(document: Json) -> Route:
    """The route. Raises `InvalidDocument` (`route.invalid`) with all faults."""
    reader = _Reader(document)
    if reader.faults or reader.route is None:
        count = len(reader.faults)
        raise InvalidDocument("route.invalid", f"The route has {count} fault{'s' if count > 1 else ''}.", reader.faults)
    return reader.route


class _Reader(RetryFields, MatcherFields):
    """One reading of one document; `route` is complete only without faults."""

    def __init__(self, document: Json) -> None:
        super().__init__()
        self.route: Route | None = None
        if not isinstance(document, dict):
            self.fault("route.invalid", "", "A route is an object (a mapping).")
            return
        self._read(document)

    def topic_refused(self, topic: str) -> str | None:
        """Dead letters and what is put back are no source either."""
        if topic.endswith((RETRY_SUFFIX, DEAD_LETTER_SUFFIX)):
            return f"{topic} has records that come from another topic."
        return super().topic_refused(topic)

    def _read(self, document: dict[str, Any]) -> None:
        self.known(document, _FIELDS, "")
        route_id = self._id(document)
        title = self.text(document, "title", "", default="")
        self.text(document, "description", "", default="")
        self.texts(document, "tags", "")
        enabled = self.boolean(document, "enabled", "", default=True)
        match = self._match(document)
        filters = self._filters(document)
        transforms = self._transforms(document)
        destination = self._destination(document)
        retry = self.retry(document)
        order = self.one_of(document, "order", "", ("key", "none"), default="key")
        dead_letter = self.boolean(document, "dead-letter", "", default=True)
        if not self.faults and destination is not None:
            self.route = Route(
                id=route_id, title=title, enabled=enabled, match=match, filters=filters, transforms=transforms, destination=destination,
                retry=retry, order=order, dead_letter=dead_letter, document=document,
            )  # fmt: skip

    def _id(self, document: Mapping[str, Any]) -> str:
        value = document.get("id")
        if value is None:
            self.fault("route.field-missing", "/id", "A route needs an id.")
        elif not is_id(value):
            self.fault("route.id-invalid", "/id", f"An id has lower-case letters, digits and dashes, at most {limits.ID_CHARACTERS_MAX}.")
        else:
            return str(value)
        return ""

    def _match(self, document: Mapping[str, Any]) -> Matcher:
        content = self.section(document, "match", "", required=True)
        return Matcher(name="match") if content is None else self.matcher("match", content, "/match")

    def _filters(self, document: Mapping[str, Any]) -> tuple[str, ...]:
        given = document.get("filters", [])
        if not isinstance(given, list) or len(given) > _FILTERS_MAX:
            self.fault("route.value-invalid", "/filters", f"filters is a list of at most {_FILTERS_MAX} CEL expressions.")
            return ()
        for index, text in enumerate(given):
            if not isinstance(text, str):
                self.fault("route.value-invalid", f"/filters/{index}", "A filter is a CEL expression.")
            else:
                self.expression(text, f"/filters/{index}")
        return tuple(text for text in given if isinstance(text, str))

    # --- transforms ---

    def _transforms(self, document: Mapping[str, Any]) -> tuple[Transform, ...]:
        given = document.get("transforms", [])
        if not isinstance(given, list) or len(given) > _TRANSFORMS_MAX:
            self.fault("route.value-invalid", "/transforms", f"transforms is a list of at most {_TRANSFORMS_MAX} steps.")
            return ()
        found = [self._transform(step, f"/transforms/{index}") for index, step in enumerate(given)]
        return tuple(step for step in found if step is not None)

    def _transform(self, step: Any, at: str) -> Transform | None:
        content: Any
        name, content = next(iter(step.items())) if isinstance(step, dict) and len(step) == 1 else (None, None)
        at = f"{at}/{name}" if name in _TRANSFORMS else at
        match name:
            case "set" | "rename" if not isinstance(content, dict) or not 0 < len(content) <= _PATHS_MAX:
                self.fault("route.value-invalid", at, f"{name} is an object (a mapping) with at least one path.")
            case "set":
                return SetFields(values=tuple(self._set(path, text, f"{at}/{escaped(path)}") for path, text in content.items()))
            case "rename":
                return self._rename(content, at)
            case "drop":
                return self._drop(content, at)
            case "map":
                if isinstance(content, str):
                    self.expression(content, at)
                    return MapFields(expression=content)
                self.fault("route.value-invalid", at, "map is a CEL expression that gives an object.")
            case _:
                self.fault("route.value-invalid", at, f"A transform is one of {', '.join(_TRANSFORMS)}, e.g. {{drop: [data.secret]}}.")
        return None

    def _set(self, path: Any, text: Any, at: str) -> tuple[Path, str]:
        if not isinstance(text, str):
            self.fault("route.value-invalid", at, "A value is a CEL expression; a text stands in quotes of its own: '\"EUR\"'.")
            text = "null"
        else:
            self.expression(text, at)
        return self._place(path, at, SETTABLE), text

    def _rename(self, content: Mapping[Any, Any], at: str) -> Transform:
        pairs = []
        for old, new in content.items():
            here = f"{at}/{escaped(old)}"
            source, target = self._place(old, here, DROPPABLE), self._place(new, here, SETTABLE)
            pairs.append((source, target))
        targets = [(target.root, target.steps) for _, target in pairs]
        if len(set(targets)) < len(targets):
            self.fault("route.value-invalid", at, "Two fields are renamed to the same name.")
        return RenameFields(pairs=tuple(pairs))

    def _drop(self, content: Any, at: str) -> Transform:
        given = [content] if isinstance(content, str) else content
        if not isinstance(given, list) or not given or len(given) > _PATHS_MAX:
            self.fault("route.value-invalid", at, "drop is a list of paths.")
            given = []
        listed = isinstance(content, list)
        return DropFields(paths=tuple(self._place(path, f"{at}/{i}" if listed else at, DROPPABLE) for i, path in enumerate(given)))

    def _place(self, text: Any, at: str, allowed: frozenset[str]) -> Path:
        if not isinstance(text, str):
            self.fault("route.value-invalid", at, "A path is a text such as data.customer.")
            return compile_path("data")
        path: Path | None = self.checked(lambda: compile_path(text), at)
        if path is None:
            return compile_path("data")
        if path.root not in allowed or (path.steps and path.root != "data"):
            self.fault(
                "route.field-refused", at, f"A route cannot change {text[:60]} so; it can {', '.join(sorted(allowed))} and below data."
            )
        return path

    # --- destination ---

    def _destination(self, document: Mapping[str, Any]) -> Destination | None:
        content = self.section(document, "destination", "", required=True)
        if content is None:
            return None
        kinds = [kind for kind in _DESTINATIONS if kind in content]
        if len(kinds) != 1:
            self.fault("route.destination-invalid", "/destination", f"A destination has exactly one of {', '.join(_DESTINATIONS)}.")
            return None
        match kinds[0]:
            case "topic":
                return self._to_topic(content)
            case "module":
                return self._to_module(content)
            case _:
                return self._to_webhook(content)

    def _to_topic(self, content: Mapping[str, Any]) -> Destination | None:
        at = "/destination"
        self.known(content, ("topic",), at)
        topic = self.text(content, "topic", at)
        if topic is None:
            return None
        known = BY_NAME.get(topic)
        if not TOPIC_NAME.fullmatch(topic) or topic in (".", ".."):
            self.fault("route.topic-invalid", f"{at}/topic", "A topic has letters, digits, dots, dashes and underscores, at most 249.")
        elif (known is not None and topic != SYSTEM_EVENTS) or topic.startswith(("mplp.internal.", "mplp.control.", "mplp.module.")):
            self.fault(
                "route.topic-refused",
                f"{at}/topic",
                f"{topic} has a meaning of its own; events go to {SYSTEM_EVENTS}, or a topic of yours.",
            )
        elif topic.endswith((RETRY_SUFFIX, DEAD_LETTER_SUFFIX)) or topic == "_schemas" or topic.startswith("__"):
            self.fault("route.topic-refused", f"{at}/topic", f"{topic} is no topic for events.")
        return ToTopic(topic=topic)

    def _to_module(self, content: Mapping[str, Any]) -> Destination | None:
        at = "/destination"
        self.known(content, ("module", "operation", "parameters", "timeout"), at)
        module = self.text(content, "module", at)
        operation = self.text(content, "operation", at, required=True)
        timeout_ms = self.duration(content, "timeout", at, default=30_000, least=1, most=3_600_000)
        parameters = self.section(content, "parameters", at)
        for name, text in (parameters or {}).items():
            if not isinstance(text, str):
                self.fault("route.value-invalid", f"{at}/parameters/{escaped(name)}", "A parameter is a CEL expression over the record.")
            else:
                self.expression(text, f"{at}/parameters/{escaped(name)}")
        if module is None or operation is None:
            return None
        if not _MODULE.fullmatch(module):
            self.fault("route.value-invalid", f"{at}/module", "A module has lower-case letters, digits and dashes.")
        elif module in CONTRACT and operation not in CONTRACT[module]:
            self.fault("operation.unknown", f"{at}/operation", f"{module} has no operation {operation!r}: {', '.join(CONTRACT[module])}.")
        texts = tuple((str(name), str(text)) for name, text in (parameters or {}).items())
        return ToModule(module=module, operation=operation, parameters=texts, timeout_ms=timeout_ms)

    def _to_webhook(self, content: Mapping[str, Any]) -> Destination | None:
        at = "/destination"
        self.known(content, ("webhook", "headers"), at)
        url = self.text(content, "webhook", at)
        headers = self.section(content, "headers", at) or {}
        for name, value in headers.items():
            here = f"{at}/headers/{escaped(name)}"
            if not isinstance(value, str) or not value.isascii() or not value.isprintable():
                self.fault("route.value-invalid", here, "The value of a header has printable ASCII characters.")
            if not isinstance(name, str) or not _HEADER.fullmatch(name) or name.lower() in OWN_HEADERS:
                self.fault("route.value-invalid", here, f"{str(name)[:60]!r} is no header that a webhook can have of a route.")
        if url is None:
            return None
        target = self.checked(lambda: target_of(url), f"{at}/webhook")
        return None if target is None else ToWebhook(target=target, headers=headers)
