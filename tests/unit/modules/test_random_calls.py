"""Any calls in any order: nothing raises, the fold equals the live state, refusals change nothing, sequences have no gaps."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.modules.catalogue import MODULES
from services.modules.hub.checksums import checksums
from services.modules.log_checksums import LogChecksums
from services.modules.operation import Parameters
from streams.codec.avro import Codec, SchemaIds
from streams.records import ModuleMessage
from streams.topics import home_of
from tests.unit.modules.conftest import Modules
from tests.unit.modules.observing import Observer

CALLS = [(module, operation) for module, built_in in MODULES.items() for operation in built_in.operations]
TEXTS = st.one_of(
    st.sampled_from(["ada", "bob", "tester", "a", "b", "plan.approve", "*", "active", "completed", "running", "ended"]), st.text(max_size=8)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
CODEC = Codec(SchemaIds.local())


def known_ids(modules: Modules) -> list[str]:
    """Ids that earlier answers gave."""
    found: list[str] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                found.append(item) if name.endswith("Id") and isinstance(item, str) else collect(item)
        elif isinstance(value, list):
            for item in value:
                collect(item)

    for entry in modules.runner.log:
        if isinstance(entry.event, ModuleMessage) and entry.event.kind == "response":
            collect(entry.event.data)
    return found


def value_for(draw: st.DrawFn, name: str, field: dict[str, Any], ids: list[str]) -> Any:
    """A value that may well be right: a known id for an id, one of the choices, else anything."""
    choices = [option for schema in (field, *field.get("anyOf", [])) for option in schema.get("enum", [])]
    if choices and draw(st.integers(0, 9)):
        return draw(st.sampled_from(choices))
    if name.endswith("Id") and ids and draw(st.integers(0, 9)):
        matching = [each for each in ids if name.removesuffix("Id") in each] or ids
        return draw(st.sampled_from(matching))
    kinds = {schema.get("type") for schema in (field, *field.get("anyOf", []))}
    if "array" in kinds and draw(st.integers(0, 9)):
        item = st.one_of(TEXTS, st.fixed_dictionaries({}, optional=dict.fromkeys(("role", "agentId", "taskId", "name"), TEXTS)))
        return draw(st.lists(item, max_size=3))
    if "string" in kinds and draw(st.integers(0, 9)):
        return draw(TEXTS)
    return draw(JSON)


def parameters_for(draw: st.DrawFn, model: type[Parameters], ids: list[str]) -> Any:
    if not draw(st.integers(0, 19)):
        return draw(JSON)
    schema = model.model_json_schema(by_alias=True)
    required = schema.get("required", [])
    return {
        name: value_for(draw, name, field, ids)
        for name, field in schema.get("properties", {}).items()
        if (name in required and draw(st.integers(0, 19))) or draw(st.booleans())
    }


@st.composite
def stories(draw: st.DrawFn) -> Modules:
    """A driver after some calls; each call is checked as it is made."""
    modules = Modules()
    modules.runner.check_state = Observer()  # no state is reached but by an arrow of its table
    modules.context()
    for _ in range(draw(st.integers(1, 12))):
        module, operation = draw(st.sampled_from(CALLS))
        parameters = parameters_for(draw, MODULES[module].operations[operation].parameters, known_ids(modules))
        request = modules.request(module, operation, parameters)
        before = dict(modules.runner.view.aggregates)
        decision = modules.receive(request)  # the runner compares the fold with the live state
        last = decision.events[-1] if decision.events else None
        if isinstance(last, ModuleMessage) and last.status == "error":
            assert len(decision.events) == 2
            assert modules.runner.view.aggregates == before
        again = modules.receive(request)
        assert again.events == (), "a repeat decides nothing"
    return modules


@settings(max_examples=60, deadline=None)
@given(stories())
def test_any_calls_in_any_order(modules: Modules) -> None:
    sequences: dict[str, list[int]] = defaultdict(list)
    for entry in modules.runner.log:
        event = entry.event
        assert event.aggregate_id is not None
        assert event.sequence is not None
        sequences[event.aggregate_id].append(event.sequence)
        assert modules.runner.view.is_local(home_of(event.aggregate_id))
        assert CODEC.decode(CODEC.encode(event)) == event
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in sequences.values())
    log, at = modules.runner.log, modules.runner.now_us
    owner = {each.module: (each.aggregates, int(each.checksum, 16)) for each in checksums(0, modules.runner.view.states(), at)}
    for watched_from in (0, len(log)):
        outside = LogChecksums(partition=0, time_us=at, watched_from=watched_from)
        for entry in log:
            outside.fold(entry.event, "log", entry.position.offset)
        sums = outside.seen()
        assert owner.keys() <= sums.keys()
        assert all(owner.get(module, (0, 0)) in found for module, found in sums.items()), "who walks the log finds what its owner knows"
        assert watched_from == 0 or all(len(found) == 1 for found in sums.values())
