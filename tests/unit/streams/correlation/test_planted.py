"""What the chaos run plants is what its rules say, without any chaos: else a fault of the plan would be taken for one of the workers."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from streams.codec.avro import to_json
from streams.correlation.parse import parse_rule
from streams.correlation.trial import Trial
from tests.chaos.planted import RULES, event_of, plan, ticks, witnesses


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_planted_is_what_the_rules_say(seed: int) -> None:
    of = plan(6000, 60.0, share=0.3, seed=seed)
    begin = datetime(2026, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)
    trial = Trial(parse_rule(rule) for rule in RULES)
    said = {}
    sent = [event_of(item, begin) for chunk in of.chunks(500) for item in chunk]
    for event in [*sent, *ticks(begin, 120.0, 4), *witnesses(begin, 121.0, 4), *ticks(begin, 150.0, 4)]:
        for composite in trial.line(orjson.dumps(to_json(event))):
            said[composite.id] = composite
    assert list(trial.finish()) == []
    found = {(each.rule_id, *each.group_key.values()): each.event_ids for each in said.values() if not each.retracted}

    assert len(sent) >= 6000
    assert trial.summary.late == 0
    assert {key: ids for key, ids in found.items() if key[0] != "witness"} == of.expected
    assert {rule for rule, _ in of.expected} == {rule["id"] for rule in RULES} - {"witness"}, "each rule has something to say"
    assert sum(key[0] == "witness" for key in found) == 4
    assert trial.summary.duplicates > 20
