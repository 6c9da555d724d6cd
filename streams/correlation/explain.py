"""What a composite says of a finding: the record itself with its confidence, one sentence with the numbers, and insights. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import orjson

from streams.correlation.confidence import confidence_of
from streams.correlation.insights import insights
from streams.correlation.rules import ActiveRule, Rule, aggregate_of
from streams.correlation.seen import Draft
from streams.correlation.sentences import explanation, group_text, instant
from streams.records import CompositeEvent

SOURCE = "mplp/correlation"


def composite(active: ActiveRule, draft: Draft) -> CompositeEvent:
    """The composite that the draft means; without the fields of the log (aggregate, sequence, epoch, input)."""
    rule, found = active.rule, draft.found
    group = group_of(rule, draft.group_key)
    confidence = confidence_of(rule, found)
    return CompositeEvent(
        id=draft.composite_id,
        type=f"composite.{rule.id}",
        source=SOURCE,
        subject=group_text(rule, group),
        time=instant(found.window_end_us),
        tenant=_only({seen.tenant for seen in found.records}) or "default",
        correlation_id=_only({seen.correlation_id for seen in found.records}) or "",
        causation_id=found.records[-1].id if found.records else None,
        data={"group": group, "count": found.count, "value": found.value, "confidence": confidence, "severity": rule.severity},
        rule_id=rule.id,
        rule_version=active.version,
        correlation_type=rule.type,
        group_key=group,
        window_start=instant(found.window_start_us),
        window_end=instant(found.window_end_us),
        event_ids=tuple([seen.id for seen in found.records]),
        event_count=found.count,
        confidence=confidence,
        severity=rule.severity,
        insights=insights(found),
        explanation=explanation(rule, group, found, retracted=draft.retracted),
        revision=draft.revision,
        retracted=draft.retracted,
        suppressed_count=found.suppressed,
        aggregate_id=aggregate_of(rule.id, draft.group_key),
    )


def group_of(rule: Rule, group_key: str) -> dict[str, str]:
    """The group by the entries of `group-by`: a string as it stands, any other value as its compact JSON text."""
    values: list[Any] = orjson.loads(group_key)
    return {
        name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in zip(rule.group_by, values, strict=True)
    }


def _only(values: Collection[str]) -> str | None:
    """The one value; None: there are several, or none."""
    return next(iter(values)) if len(values) == 1 else None
