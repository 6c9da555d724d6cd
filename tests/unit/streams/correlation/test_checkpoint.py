"""Whatever of a checkpoint was written when the owner died, its successor finds the last complete one, exactly."""

from __future__ import annotations

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.correlation.checkpoint import CheckpointReader, CheckpointWriter, Entry, Group, Loaded
from streams.records import Json

GROUPS: list[Group] = [("r", "[1]"), ("r", "[2]"), ("s", "[]")]
CHANGES = st.lists(st.dictionaries(st.sampled_from(GROUPS), st.none() | st.integers(0, 99), max_size=3), min_size=1, max_size=8)


def compacted(entries: list[Entry], *, drop_tombstones: bool) -> list[Entry]:
    latest = {entry.key: entry for entry in entries}
    return [entry for entry in latest.values() if entry.state is not None or not drop_tombstones]


def load(entries: list[Entry]) -> Loaded | None:
    reader = CheckpointReader(0)
    for entry in entries:
        reader.read(entry.key, entry.state)
    return reader.loaded()


@settings(max_examples=300, deadline=None)
@given(changes=CHANGES, data=st.data())
def test_the_last_complete_checkpoint_is_found(changes: list[dict[Group, Json]], data: st.DataObject) -> None:
    writer = CheckpointWriter(3, 0)
    log: list[Entry] = []
    complete: list[tuple[int, dict[Group, Json]]] = []  # (entries written when it was complete, the groups then)
    state: dict[Group, Json] = {}
    for number, change in enumerate(changes, start=1):
        state = {group: content for group, content in {**state, **change}.items() if content is not None}
        log += writer.groups(change.items())
        log.append(writer.completion(matches_offset=number, composites_offset=10 + number, state={"n": number}))
        complete.append((len(log), dict(state)))
        log += writer.completed()
    cut = data.draw(st.integers(0, len(log)))
    expected = [(at, groups) for at, groups in complete if at <= cut]
    for written in (log[:cut], compacted(log[:cut], drop_tombstones=False), compacted(log[:cut], drop_tombstones=True)):
        loaded = load(written)
        if not expected:
            assert loaded is None
            continue
        assert loaded is not None
        assert loaded.groups == expected[-1][1]
        assert (loaded.epoch, loaded.matches_offset, loaded.composites_offset) == (3, len(expected), 10 + len(expected))
        assert loaded.state == {"n": len(expected)}


@settings(max_examples=100, deadline=None)
@given(changes=CHANGES, failures=st.lists(st.booleans(), min_size=8, max_size=8), data=st.data())
def test_a_checkpoint_that_was_given_up_and_tried_again_hides_nothing(
    changes: list[dict[Group, Json]], failures: list[bool], data: st.DataObject
) -> None:
    writer = CheckpointWriter(3, 0)
    log: list[Entry] = []
    state: dict[Group, Json] = {}
    stored: dict[Group, Json] = {}
    unwritten: set[Group] = set()
    for change, fails in zip(changes, failures, strict=False):
        state |= change
        unwritten |= change.keys()
        entries = [*writer.groups((group, state[group]) for group in sorted(unwritten))]
        if fails:
            log += entries[: data.draw(st.integers(0, len(entries)))]
        else:
            log += [*entries, writer.completion(matches_offset=1, composites_offset=1, state={})]
            log += writer.completed()
            unwritten = set()
            stored = {group: content for group, content in state.items() if content is not None}
        loaded = load(log)
        assert ({} if loaded is None else loaded.groups) == stored


def test_the_newest_epoch_wins_and_older_keys_are_named_for_tombstones() -> None:
    log: list[Entry] = []
    for epoch, content in ((3, "old"), (5, "new")):
        writer = CheckpointWriter(epoch, 0)
        log += [*writer.groups([(("r", "[1]"), content)]), writer.completion(matches_offset=epoch, composites_offset=0, state={})]
    reader = CheckpointReader(0)
    for entry in log:
        reader.read(entry.key, entry.state)
    loaded = reader.loaded()
    assert loaded is not None
    assert (loaded.epoch, loaded.groups) == (5, {("r", "[1]"): "new"})
    assert sorted(reader.keys_before(5)) == ["3/checkpoint/correlate/0", "3/correlate/0/0/r/[1]"]


def test_other_partitions_and_other_records_are_none_of_its_business() -> None:
    writer = CheckpointWriter(3, 1)
    log = [*writer.groups([(("r", "[1]"), 1)]), writer.completion(matches_offset=1, composites_offset=1, state={})]
    assert load([*log, Entry("fence/x/0/1", "", b"{}"), Entry("7/agent/a", "", b"{}")]) is None


def test_a_checkpoint_of_another_version_of_the_product_is_not_used_and_is_cleared_away() -> None:
    writer = CheckpointWriter(3, 0)
    entry = writer.completion(matches_offset=1, composites_offset=2, state={})
    content = orjson.loads(entry.state or b"")
    older = orjson.dumps({name: value for name, value in content.items() if name != "format"})
    reader = CheckpointReader(0)
    reader.read(entry.key, entry.state)
    assert reader.loaded() is not None
    reader.read(entry.key, older)
    assert reader.loaded() is None
    assert reader.keys_before(4) == [entry.key]
