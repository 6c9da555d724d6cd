"""Changing the rules in force: `streams.control.documents`, for rules, and what is wrong with several of them together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streams.control.documents import APPLY_TIMEOUT_S, Changed, Documents, Report
from streams.control.kinds import RULES
from streams.correlation.levels import cycles
from streams.correlation.parse import parse_rule, validate
from streams.correlation.templates import escaped
from streams.errors import InvalidDocument, Violation
from streams.records import Json


def check(documents: Sequence[Json], in_force: Iterable[Json] = ()) -> None:
    """Raises `InvalidDocument` (`rule.invalid`) with all faults of all documents; of several, pointers begin with the index.

    `in_force`: the other rules, which the documents together with may not read each other's composites in a circle (`rule.cycle`).
    """
    several = len(documents) > 1
    faults: list[Violation] = []
    seen: set[str] = set()
    for index, document in enumerate(documents):
        at = f"/{index}" if several else ""
        found = validate(document)
        faults += [Violation(code=fault.code, pointer=at + fault.pointer, message=fault.message) for fault in found]
        if not found and document["id"] in seen:
            faults.append(Violation(code="rule.id-twice", pointer=f"{at}/id", message=f"{document['id']} is given twice."))
        if not found:
            seen.add(document["id"])
    if not faults:
        faults = _circles(documents, in_force)
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise InvalidDocument("rule.invalid", f"The rules have {count}." if several else f"The rule has {count}.", faults)


def _circles(documents: Sequence[Json], in_force: Iterable[Json]) -> list[Violation]:
    rules = [parse_rule(document) for document in documents]
    others = [parse_rule(document) for document in in_force if not validate(document)]
    faults = []
    for circle in cycles([*rules, *others]):
        for index, rule in enumerate(rules):
            at = f"/{index}" if len(rules) > 1 else ""
            for matcher in rule.matchers if rule.id in circle else ():
                if set(matcher.rules or ()) & set(circle):
                    message = (
                        f"{', '.join(circle)} read each other's composites in a circle."
                        if len(circle) > 1
                        else f"{rule.id} reads its own composites."
                    )
                    faults.append(Violation(code="rule.cycle", pointer=f"{at}/events/{escaped(matcher.name)}/rule", message=message))
    return faults


DOCUMENTS = Documents(RULES, check)

apply = DOCUMENTS.apply
plan = DOCUMENTS.plan
delete = DOCUMENTS.delete
disable = DOCUMENTS.disable
list_rules = DOCUMENTS.all
show = DOCUMENTS.show
history = DOCUMENTS.history
version = DOCUMENTS.version

__all__ = [
    "APPLY_TIMEOUT_S", "DOCUMENTS", "Changed", "Report", "apply", "check", "delete", "disable", "history", "list_rules", "plan", "show",
    "version",
]  # fmt: skip
