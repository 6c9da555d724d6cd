"""Random rules over random records, against the oracle: `final`, `eager` with all its revisions, late records, dumps."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.streams.correlation.oracle import truth
from tests.unit.streams.correlation.strategies import (
    FAMILIES,
    arrivals,
    as_matches,
    chain_of,
    comparable,
    document,
    feed,
    finish,
    records,
    rules,
    standing,
)

COMMON = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.mark.parametrize("family", FAMILIES)
@COMMON
@given(data=st.data())
def test_final_says_the_truth_whatever_the_order_of_arrival_within_grace(family: str, data: st.DataObject) -> None:
    rule, given_records = data.draw(rules(family)), data.draw(records())
    expected = comparable(truth(rule, given_records))
    arrived = data.draw(arrivals(given_records, rule["correlation"]["grace"]))

    chain = chain_of(document(rule, output="final"))
    said = feed(chain, arrived) + finish(chain)

    assert all(composite.revision == 0 and not composite.retracted for composite in said)
    assert comparable(as_matches(said)) == expected
    assert chain.engine.counters("r").late == 0


@pytest.mark.parametrize("rewalk", [0, 32])
@pytest.mark.parametrize("family", FAMILIES)
@COMMON
@given(data=st.data())
def test_eager_stands_in_the_end_where_final_does(rewalk: int, family: str, data: st.DataObject) -> None:
    rule, given_records = data.draw(rules(family)), data.draw(records())
    arrived = data.draw(arrivals(given_records, rule["correlation"]["grace"]))
    # Ties go by arrival: here the ids sort so too.
    numbered = [type(record)(record.time, f"n{n:02}", record.type, record.group, record.value) for n, record in enumerate(arrived)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streams.correlation.eager.REWALK", rewalk)  # how much is put off makes no difference
        chain = chain_of(document(rule, output="eager"))
        said = feed(chain, numbered) + finish(chain)

    assert comparable(as_matches(standing(said))) == comparable(truth(rule, numbered))


@pytest.mark.parametrize("family", FAMILIES)
@COMMON
@given(data=st.data())
def test_late_records_take_no_part_and_a_watermark_speaks_of_what_it_has_passed(family: str, data: st.DataObject) -> None:
    rule, given_records = data.draw(rules(family)), data.draw(records())
    arrived = data.draw(st.permutations(given_records))
    newest = max(record.time for record in arrived)
    until = data.draw(st.integers(newest - rule["correlation"]["grace"], newest + 20))

    chain = chain_of(document(rule, output="final"))
    said = feed(chain, arrived) + finish(chain, until)

    assert comparable(as_matches(said)) == comparable(truth(rule, arrived, until))


@pytest.mark.parametrize("family", FAMILIES)
@COMMON
@given(data=st.data())
def test_a_state_dumped_and_loaded_anywhere_goes_on_the_same(monkeypatch: pytest.MonkeyPatch, family: str, data: st.DataObject) -> None:
    rule, given_records = data.draw(rules(family)), data.draw(records())
    arrived = data.draw(arrivals(given_records, rule["correlation"]["grace"] + 2))
    cut = data.draw(st.integers(0, len(arrived)))
    of = document(rule, output=data.draw(st.sampled_from(["eager", "final"])))

    monkeypatch.setattr("streams.correlation.eager.REWALK", data.draw(st.sampled_from([0, 2, 32])))
    undisturbed = chain_of(of)
    expected = feed(undisturbed, arrived) + finish(undisturbed)

    chain = chain_of(of)
    said = feed(chain, arrived[:cut])
    dumped = {key: orjson.dumps(chain.engine.dump_group(*key)) for key in chain.engine.groups()}
    resumed = chain_of(of)
    resumed.engine.resume(chain.engine.clocks_us, chain.engine.floors_us())
    for key, state in dumped.items():
        resumed.engine.load_group(*key, orjson.loads(state))
    assert {key: orjson.dumps(resumed.engine.dump_group(*key)) for key in resumed.engine.groups()} == dumped
    rest = arrived[cut:]
    after = feed(resumed, rest, first=cut + 1) + finish(resumed)
    dumped_in_between = feed(chain, rest, first=cut + 1) + finish(chain)

    assert said + after == expected
    assert said + dumped_in_between == expected, "dumping changes nothing"
