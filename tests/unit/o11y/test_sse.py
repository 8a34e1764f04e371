"""Server-sent events: the same ones however the stream is cut, and not a byte changed."""

import random
import time

import pytest

from o11y.http.sse import MAX_EVENT, Splitter, TooLong, data

EVENTS = [
    b"data: one\n\n",
    b"data:two\n\n",
    b": a comment\n\n",
    b"event: e\ndata: three\nid: 7\n\n",
    b"data: four\ndata: five\n\n",
    b"data: \n\n",
    b"retry: 10\n\n",
    "data: é🍵\n\n".encode(),
    b"data: " + b"x" * 3000 + b"\n\n",
]
DATA = [b"one", b"two", None, b"three", b"four\nfive", b"", None, "é🍵".encode(), b"x" * 3000]

each_ending = pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=repr)


def ended(end: bytes) -> list[bytes]:
    return [event.replace(b"\n", end) for event in EVENTS]


def cut(stream: bytes, dice: random.Random) -> list[bytes]:
    places = sorted(dice.randrange(len(stream) + 1) for _ in range(dice.choice((1, 5, 200))))
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True) if a < b]


@each_ending
@pytest.mark.parametrize("seed", range(30))
def test_any_cut_of_a_stream_gives_the_same_events(seed: int, end: bytes) -> None:
    splitter = Splitter()
    pieces = cut(b"".join(ended(end)), random.Random(seed))
    assert [event for piece in pieces for event in splitter.feed(piece)] == ended(end)
    assert splitter.rest() == b""


MIXED = [
    b"data: 1\n\r\n",
    b"data: 2\r\n\n",
    b"data: 3\r\n\r\n",
    b"data: 4\n\n",
    b"data: 5\r\n\r\n",
    b"data: 6\n\n",
]


def test_ends_of_lines_may_be_mixed_in_one_piece() -> None:
    assert Splitter().feed(b"".join(MIXED)) == MIXED
    assert [data(event) for event in MIXED] == [b"1", b"2", b"3", b"4", b"5", b"6"]


@pytest.mark.parametrize("seed", range(30))
def test_any_cut_of_mixed_ends_gives_the_same_events(seed: int) -> None:
    splitter = Splitter()
    pieces = cut(b"".join(MIXED), random.Random(seed))
    assert [event for piece in pieces for event in splitter.feed(piece)] == MIXED


def test_an_event_does_not_wait_for_the_next_one_where_its_end_is_sure() -> None:
    splitter = Splitter()
    assert splitter.feed(b"data: 1\r\r") == [b"data: 1\r\r"]
    assert splitter.feed(b"data: 2\n\r\n") == [b"data: 2\n\r\n"]


def test_a_byte_order_mark_is_no_part_of_the_first_event() -> None:
    assert data(b"\xef\xbb\xbfdata: 1\n\n") == b"1"


@each_ending
def test_byte_by_byte_is_a_cut_too(end: bytes) -> None:
    splitter = Splitter()
    stream = b"".join(ended(end))
    found = [event for at in range(len(stream)) for event in splitter.feed(stream[at : at + 1])]
    assert found == ended(end)


@each_ending
def test_one_piece_may_hold_them_all(end: bytes) -> None:
    assert Splitter().feed(b"".join(ended(end))) == ended(end)


@each_ending
def test_the_data_of_an_event(end: bytes) -> None:
    assert [data(event) for event in ended(end)] == DATA


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_where_line_ends_are_mixed(seed: int) -> None:
    dice = random.Random(seed)
    ends = (b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\n\n", b"\r\n\n")
    stream = b"".join(b"data: %d" % n + dice.choice(ends) for n in range(50))
    splitter = Splitter()
    events = [event for piece in cut(stream, dice) for event in splitter.feed(piece)]
    assert b"".join(events) + splitter.rest() == stream
    assert [data(event) for event in events] == [b"%d" % n for n in range(50)]


def test_what_has_no_end_yet_is_kept() -> None:
    splitter = Splitter()
    assert splitter.feed(b"data: a\n\ndata: b\n") == [b"data: a\n\n"]
    assert splitter.rest() == b"data: b\n"
    assert splitter.feed(b"\n") == [b"data: b\n\n"]
    assert splitter.rest() == b""


@pytest.mark.parametrize("piece", [1 << 16, 1 << 20])
def test_an_event_without_end_is_given_up_in_time(piece: int) -> None:
    splitter = Splitter()
    began = time.process_time()
    for _ in range(MAX_EVENT // piece):
        assert splitter.feed(b"x" * piece) == []
    with pytest.raises(TooLong):
        splitter.feed(b"x")
    assert time.process_time() - began < 3


def test_the_longest_event_passes() -> None:
    event = b"data: " + b"x" * (MAX_EVENT - 8) + b"\n\n"
    splitter = Splitter()
    assert splitter.feed(event[:-1]) == []
    assert splitter.feed(event[-1:]) == [event]
