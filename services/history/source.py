"""Which topics the history keeps, and what may lie in them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from services.history.rows import Source
from streams.topics import BY_NAME, DEAD_LETTER_SUFFIX, REQUESTS, RETRY_SUFFIX, TopicNames

_DEAD_LETTERS = Source(catalogue=None, records=())
_MODULE_INBOX = Source(catalogue=None, records=("ModuleMessage",))


def source_of(topic: str, names: TopicNames) -> Source | None:
    """What the history keeps of a topic (name on the broker); None: nothing.

    Beside the catalogue's sunk topics: the inboxes of users' modules, and dead letters of users' topics, by their names.
    Topics of another installation on the same broker (the catalogue's names under another prefix) are not ours.
    """
    logical = names.logical(topic)
    known = BY_NAME.get(logical)
    if known is not None and (topic == logical or topic.startswith(names.prefix + ".")):
        ours = names.physical(logical) == topic
        return Source(catalogue=known, records=tuple(record.__name__ for record in known.records)) if known.sunk and ours else None
    if logical.startswith(REQUESTS + ".") and not logical.endswith((DEAD_LETTER_SUFFIX, RETRY_SUFFIX)):
        return _MODULE_INBOX if topic.startswith(names.prefix + ".") else None
    if topic.endswith(DEAD_LETTER_SUFFIX):
        return None if names.is_of_another(topic) else _DEAD_LETTERS
    return None


def sunk(topics: Iterable[str], names: TopicNames) -> dict[str, Source]:
    """The topics that the history keeps of all on the broker, with what is known of them."""
    found = ((topic, source_of(topic, names)) for topic in sorted(names.own(topics)))
    return {topic: source for topic, source in found if source is not None}
