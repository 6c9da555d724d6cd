"""`streams.bus.lines.LineSplitter`: any cut of a byte stream gives the same lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.bus.lines import LineSplitter


def lines_of(pieces: list[bytes], most: int = 1000) -> list[tuple[int, bytes | None]]:
    splitter = LineSplitter(most)
    found = [line for piece in pieces for line in splitter.feed(piece)]
    return [*found, *splitter.end()]


@given(st.lists(st.binary(max_size=20) | st.just(b"\n"), max_size=20))
def test_lines_do_not_depend_on_the_pieces(pieces: list[bytes]) -> None:
    expected = b"".join(pieces).split(b"\n")
    if not expected[-1]:
        expected.pop()
    if expected:
        expected[0] = expected[0].removeprefix(b"\xef\xbb\xbf")

    assert [line for _, line in lines_of(pieces)] == expected
    assert [number for number, _ in lines_of(pieces)] == list(range(1, len(expected) + 1))


@given(st.lists(st.sampled_from([b"a", b"bb", b"\n", b"cccccc"]), max_size=40))
def test_a_line_that_is_too_long_is_named_and_the_others_are_kept(pieces: list[bytes]) -> None:
    expected: list[bytes | None] = [line if len(line) <= 4 else None for line in b"".join(pieces).split(b"\n")]
    if expected[-1] == b"":
        expected.pop()

    assert [line for _, line in lines_of(pieces, most=4)] == expected


def test_an_endless_line_takes_no_memory() -> None:
    splitter = LineSplitter(10)
    for _ in range(1000):
        assert list(splitter.feed(b"x" * 9)) == []
        assert len(splitter._rest) <= 10
    assert list(splitter.feed(b"\nok\n")) == [(1, None), (2, b"ok")]


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert lines_of([b"\xef", b"\xbb\xbf{}\n{}"]) == [(1, b"{}"), (2, b"{}")]
