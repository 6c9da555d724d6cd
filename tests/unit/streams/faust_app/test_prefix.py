"""Only what lies before the first unacknowledged chunk may be committed, whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streams import limits
from streams.faust_app.prefix import Chunk, ChunkLost, CommitPrefix


def chunk(prefix: CommitPrefix[str], start: int, end: int) -> Chunk:
    session = prefix.session("p")
    assert session is not None
    return Chunk("t", 0, start, end, (), session)


@pytest.fixture
def prefix() -> CommitPrefix[str]:
    made: CommitPrefix[str] = CommitPrefix()
    made.begin("p")
    return made


def test_nothing_is_committable_before_an_acknowledgement(prefix: CommitPrefix[str]) -> None:
    prefix.deliver("p", chunk(prefix, 5, 9), 0.0)
    assert prefix.committable("p") is None


def test_a_later_chunk_waits_for_the_earlier(prefix: CommitPrefix[str]) -> None:
    first, second = chunk(prefix, 0, 10), chunk(prefix, 10, 12)
    assert prefix.deliver("p", first, 1.0)
    assert prefix.deliver("p", second, 2.0)
    assert prefix.acknowledge("p", second)
    assert prefix.committable("p") is None
    assert prefix.oldest() == 1.0
    assert prefix.acknowledge("p", first)
    assert prefix.committable("p") == 12
    assert not prefix.waits("p")
    assert prefix.oldest() is None


def test_what_is_cut_is_under_way_before_it_is_delivered(prefix: CommitPrefix[str]) -> None:
    """Else a partition would count as read to its end while its records wait for room in a queue."""
    assert not prefix.waits("p")
    prefix.cut("p", 12)
    assert prefix.waits("p")
    for part in (chunk(prefix, 0, 10), chunk(prefix, 10, 12)):
        assert prefix.waits("p")
        prefix.deliver("p", part, 0.0)
        prefix.acknowledge("p", part)
    assert not prefix.waits("p")


def test_offsets_that_the_fetch_explains_belong_to_the_chunk_behind_them(prefix: CommitPrefix[str]) -> None:
    first, second = chunk(prefix, 0, 3), chunk(prefix, 3, 100)  # 3..97 were compacted away
    prefix.deliver("p", first, 0.0)
    prefix.deliver("p", second, 0.0)
    prefix.acknowledge("p", second)
    prefix.acknowledge("p", first)
    assert prefix.committable("p") == 100


def test_a_hole_that_nothing_explains_is_an_error(prefix: CommitPrefix[str]) -> None:
    prefix.deliver("p", chunk(prefix, 0, 3), 0.0)
    with pytest.raises(ChunkLost, match="begins at 4"):
        prefix.deliver("p", chunk(prefix, 4, 6), 0.0)


def test_chunks_of_an_earlier_session_are_strangers(prefix: CommitPrefix[str]) -> None:
    old = chunk(prefix, 0, 10)
    never_delivered = chunk(prefix, 10, 20)
    prefix.deliver("p", old, 0.0)
    prefix.begin("p")
    new = chunk(prefix, 0, 5)
    prefix.deliver("p", new, 0.0)
    assert not prefix.deliver("p", never_delivered, 0.0)
    assert not prefix.acknowledge("p", old)
    assert prefix.committable("p") is None
    assert prefix.acknowledge("p", new)
    assert prefix.committable("p") == 5


def test_a_partition_given_back_commits_nothing(prefix: CommitPrefix[str]) -> None:
    mine = chunk(prefix, 0, 10)
    prefix.deliver("p", mine, 0.0)
    prefix.forget("p")
    assert not prefix.acknowledge("p", mine)
    assert prefix.committable("p") is None
    assert not prefix.deliver("p", mine, 0.0)


def test_acknowledging_twice_changes_nothing(prefix: CommitPrefix[str]) -> None:
    first, second = chunk(prefix, 0, 1), chunk(prefix, 1, 2)
    prefix.deliver("p", first, 0.0)
    prefix.deliver("p", second, 0.0)
    assert prefix.acknowledge("p", first)
    assert not prefix.acknowledge("p", first)
    assert prefix.committable("p") == 1


class PrefixMachine(RuleBasedStateMachine):
    """Deliveries, acknowledgements in any order, seeks back: against the plain list of what was acknowledged."""

    @initialize()
    def start(self) -> None:
        self.prefix: CommitPrefix[str] = CommitPrefix()
        self.delivered: list[tuple[Chunk, bool]] = []  # of this session: (chunk, acknowledged)
        self.strangers: list[Chunk] = []
        self.seek(0)

    @rule(back=st.integers(0, 50))
    def seek(self, back: int) -> None:
        self.strangers += [found for found, _ in self.delivered]
        self.position = max(0, getattr(self, "position", 0) - back)
        self.delivered = []
        self.prefix.begin("p")

    @rule(size=st.integers(1, 5), hole=st.integers(0, 3))
    def deliver(self, size: int, hole: int) -> None:
        made = chunk(self.prefix, self.position, self.position + hole + size)
        assert self.prefix.deliver("p", made, 0.0)
        self.delivered.append((made, False))
        self.position = made.end

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        waiting = [index for index, (_, done) in enumerate(self.delivered) if not done]
        if waiting:
            index = data.draw(st.sampled_from(waiting))
            assert self.prefix.acknowledge("p", self.delivered[index][0])
            self.delivered[index] = (self.delivered[index][0], True)

    @rule(data=st.data())
    def acknowledge_a_stranger(self, data: st.DataObject) -> None:
        if self.strangers:
            assert not self.prefix.acknowledge("p", data.draw(st.sampled_from(self.strangers)))

    @invariant()
    def only_the_acknowledged_prefix(self) -> None:
        expected = None
        for made, done in getattr(self, "delivered", []):
            if not done:
                break
            expected = made.end
        if hasattr(self, "prefix"):
            assert self.prefix.committable("p") == expected


PrefixMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPrefixMachine = PrefixMachine.TestCase


@given(order=st.permutations(range(8)))
def test_in_whatever_order_acknowledged_all_is_committable_in_the_end(order: list[int]) -> None:
    prefix: CommitPrefix[str] = CommitPrefix()
    prefix.begin("p")
    chunks = [chunk(prefix, index * 10, index * 10 + 10) for index in range(8)]
    for made in chunks:
        prefix.deliver("p", made, 0.0)
    for index in order:
        prefix.acknowledge("p", chunks[index])
    assert prefix.committable("p") == 80


def test_what_is_handled_ends_before_the_first_chunk_that_waits(prefix: CommitPrefix[str]) -> None:
    assert prefix.handled("p") is None
    first, second = chunk(prefix, 5, 10), chunk(prefix, 10, 12)
    prefix.deliver("p", first, 0.0)
    prefix.deliver("p", second, 0.0)
    assert prefix.handled("p") == 5
    prefix.acknowledge("p", second)
    assert prefix.handled("p") == 5
    prefix.acknowledge("p", first)
    assert prefix.handled("p") == 12
    prefix.begin("p")
    assert prefix.handled("p") is None
    assert prefix.handled("unknown") is None


def test_a_chunk_that_waits_behind_another_makes_the_next_ones_grow(prefix: CommitPrefix[str]) -> None:
    """Else many chunks of one record each would wait, and pay for an acknowledgement each."""
    first, second = chunk(prefix, 0, 1), chunk(prefix, 1, 2)
    prefix.deliver("p", first, 0.0)
    assert not prefix.load().full
    prefix.deliver("p", second, 0.0)
    assert prefix.load().full
    prefix.acknowledge("p", first)
    assert not prefix.load().full


def test_chunks_of_different_topics_do_not_wait_for_each_other(prefix: CommitPrefix[str]) -> None:
    prefix.begin("q")
    session = prefix.session("q")
    assert session is not None
    prefix.deliver("p", chunk(prefix, 0, 1), 0.0)
    prefix.deliver("q", Chunk("other", 0, 0, 1, (), session), 0.0)
    assert not prefix.load().full


@pytest.mark.parametrize("size", [0, limits.CHUNK_BACKLOG_BYTES_MAX - 1, limits.CHUNK_BACKLOG_BYTES_MAX])
def test_what_is_under_way_is_bounded_in_bytes(prefix: CommitPrefix[str], size: int) -> None:
    session = prefix.session("p")
    assert session is not None
    prefix.deliver("p", Chunk("t", 0, 0, 1, (), session, size), 0.0)
    assert prefix.load().full == (size >= limits.CHUNK_BACKLOG_BYTES_MAX)


def test_what_others_have_now_is_not_under_way(prefix: CommitPrefix[str]) -> None:
    prefix.deliver("p", chunk(prefix, 0, 1), 0.0)
    prefix.deliver("p", chunk(prefix, 1, 2), 0.0)
    prefix.begin("p")
    assert not prefix.load().full
