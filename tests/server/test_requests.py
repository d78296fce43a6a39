"""What is decoded in C is what the `Decoder` would have read, whatever the bytes are and however they come."""

from __future__ import annotations

import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.server import dispatch
from agentd.server.dispatch import PlainRequest, RequestDecoder
from agentd_client.protocol import limits
from agentd_client.protocol.codec import Decoder, Request, whole_messages
from tests.protocol.test_codec import (
    METHODS,
    MSGIDS,
    NOT_MESSAGES,
    NOTIFICATIONS_OF_ANOTHER_FORM,
    REQUESTS_THAT_CANNOT_BE_CARRIED_OUT,
    SCALARS,
    TEXT,
    VALUES,
    containers,
    nested,
    pack,
)

PLAIN = pack(0, 7, "verifyToken", [{"token": "v4.local.AAAA"}])

IN_DOUBT = {
    "a key twice": b"\x94\x00\x01\xa1m\x91\x82\xa1a\x01\xa1a\x01",
    "a key twice, and one that is longer": b"\x94\x00\x01\xa1m\x91\x83\xa1a\x01\xa2bc\x01\xa1a\x01",
    "a key twice, spelled differently": b"\x94\x00\x01\xa1m\x91\x82\xa1a\x01\xd9\x01a\x02",
    "a key twice, with a value in a longer form": b"\x94\x00\x01\xa1m\x91\x82\xa1a\xcc\x01\xa1a\xcc\x01",
    "an array in a longer form": b"\xdc\x00\x04\x00\x01\xa1m\x91\x81\xa1a\x01",
    "a map in a longer form": b"\x94\x00\x01\xa1m\x91\xde\x00\x01\xa1a\x01",
    "a msgid in a longer form": b"\x94\x00\xcf" + bytes(7) + b"\x01\xa1m\x91\x81\xa1a\x01",
    "a msgid of more than 32 bits": pack(0, 2**32, "m", [{}]),
    "a negative msgid": pack(0, -1, "m", [{}]),
    "a msgid that is a whole float": pack(0, 1.0, "m", [{}]),
    "a msgid that is text": pack(0, "1", "m", [{}]),
    "a type that is false": pack(False, 1, "m", [{}]),
    "a type that is a whole float": pack(0.0, 1, "m", [{}]),
    "a request of five": pack(0, 1, "m", [{}], None),
    "a request of three": pack(0, 1, "m"),
    "a method of 64": pack(0, 1, "m" * 64, [{}]),
    "a method of 65": pack(0, 1, "m" * 65, [{}]),
    "a method that is bytes": pack(0, 1, b"m", [{}]),
    "a method that is not UTF-8": b"\x94\x00\x01\xa1\xff\x91\x80",
    "a key that is not UTF-8": b"\x94\x00\x01\xa1m\x91\x81\xa1\xff\x01",
    "a value that is not UTF-8": b"\x94\x00\x01\xa1m\x91\x81\xa1a\xa1\xff",
    "a surrogate as UTF-8": b"\x94\x00\x01\xa1m\x91\x81\xa1a\xa3\xed\xa0\x80",
    "a key that is bytes": pack(0, 1, "m", [{b"a": 1}]),
    "a key that is a number": pack(0, 1, "m", [{1: 1}]),
    "a value that is bytes": pack(0, 1, "m", [{"a": b"b"}]),
    "an array of numbers": pack(0, 1, "m", [{"a": ["b", 1]}]),
    "an array of arrays": pack(0, 1, "m", [{"a": [["b"]]}]),
    "an array of text in a longer form": b"\x94\x00\x01\xa1m\x91\x81\xa1a\xdc\x00\x01\xa1b",
    "an array of 65 texts": pack(0, 1, "m", [{"a": ["b"] * 65}]),
    "more than 128 arrays": pack(
        0, 1, "m", [{str(n): [] for n in range(64)}, {str(n): [] for n in range(64)}]
    ),
    "a header of 4 GiB of text array": b"\x94\x00\x01\xa1m\x91\x81\xa1a\xdd\xff\xff\xff\xff\xa1b",
    "a value that is a map with a key twice": b"\x94\x00\x01\xa1m\x91\x81\xa1b\x82\xa1a\x01\xa1a\x02",
    "a timestamp": b"\x94\x00\x01\xa1m\x91\x81\xa1a\xd6\xff\x00\x00\x00\x00",
    "a map of 64": pack(0, 1, "m", [{str(n): n for n in range(64)}]),
    "a map of 65": pack(0, 1, "m", [{str(n): n for n in range(65)}]),
    "params of none": pack(0, 1, "m", []),
    "params of an array": pack(0, 1, "m", [[]]),
    "params of two maps": pack(0, 1, "m", [{}, {}]),
    "params that are a map": pack(0, 1, "m", {}),
    "the largest integers": pack(0, 2**32 - 1, "m", [{"a": 2**64 - 1, "b": -(2**63)}]),
    "NaN with bits of its own": b"\x94\x00\x01\xa1m\x91\x81\xa1a\xcb\x7f\xf8\x00\x00\x00\x00\x00\x2a",
    "a signalling NaN": b"\x94\x00\x01\xa1m\x91\x81\xa1a\xcb\x7f\xf0\x00\x00\x00\x00\x00\x2a",
    "a float of 32 bits": b"\x94\x00\x01\xa1m\x91\x81\xa1a\xca\x3f\x80\x00\x00",
    "minus zero": pack(0, 1, "m", [{"a": -0.0}]),
    "the byte that MessagePack never uses": b"\xc1",
    "nested too deeply": nested(limits.MAX_NESTING + 1),
    "as many arrays as there may be": containers(limits.MAX_CONTAINERS, b"\x90"),
    "one array more": containers(limits.MAX_CONTAINERS + 1, b"\x90"),
    "a response": pack(1, 1, None, None),
    "a notification": pack(2, "m", [{}]),
    "nothing": b"",
}

HOSTILE = {
    **IN_DOUBT,
    **{f"no message: {name}": data for name, data in NOT_MESSAGES.items()},
    **{f"a notification: {name}": data for name, data in NOTIFICATIONS_OF_ANOTHER_FORM.items()},
    **{f"refused: {name}": data for name, (data, *_) in REQUESTS_THAT_CANNOT_BE_CARRIED_OUT.items()},
}


def told(message: object) -> tuple[object, ...]:
    """A message as it can be compared: an error by what it says, a number by its type, NaN by its bits."""
    if isinstance(message, PlainRequest | Request):
        return "request", message.msgid, message.method, msgpack.packb(message.params), repr(message.params)
    return type(message).__name__, repr(message)


def reads(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    edges = [*edges, *range(0, len(data), limits.READ_BYTES)]
    edges = sorted({*edges})
    return [data[start:end] for start, end in zip(edges, edges[1:], strict=False)]


def assert_same(pieces: list[bytes]) -> None:
    ours, theirs = RequestDecoder(), Decoder()
    for piece in pieces:
        found, expected = ours.receive(piece), theirs.receive(piece)
        assert [told(message) for message in found] == [told(message) for message in expected]
        assert (ours.unfinished is not None) == theirs.has_partial_message
        if ours.unfinished is not None:
            assert repr(ours.unfinished.failure) == repr(theirs.failure)
            assert ours.unfinished.msgid_of_rest == theirs.msgid_of_rest


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("before", [0, 1, 2, 15, 16, 40])
def test_bytes_in_doubt_are_read_as_the_decoder_reads_them(data, before):
    whole = PLAIN * before + data + PLAIN * 2
    assert_same(reads(whole, []))
    assert_same(reads(whole, [len(PLAIN) * before]))
    assert_same(reads(whole, [len(PLAIN) * before + 1, len(whole) - len(PLAIN) - 1]))


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_and_byte_by_byte(data):
    assert_same([bytes([byte]) for byte in PLAIN + data + PLAIN])


MESSAGES = st.one_of(
    st.builds(
        lambda *parts: pack(0, *parts), MSGIDS, METHODS, st.lists(st.dictionaries(TEXT, SCALARS), max_size=2)
    ),
    st.builds(lambda *parts: pack(0, *parts), MSGIDS, METHODS, st.lists(VALUES, max_size=2)),
    st.builds(lambda method, value: pack(2, method, [value]), METHODS, VALUES),
    st.sampled_from([PLAIN, *IN_DOUBT.values()]),
)


@given(st.lists(MESSAGES, max_size=20), st.lists(st.integers(0), max_size=6))
def test_any_messages_are_read_as_the_decoder_reads_them_however_they_are_cut(messages, cuts):
    assert_same(reads(b"".join(messages), cuts))


@given(
    st.lists(MESSAGES, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=4),
)
def test_changed_bytes_are_read_as_the_decoder_reads_them(messages, changes):
    data = bytearray(b"".join(messages))
    for where, byte in changes:
        if data:
            data[where % len(data)] = byte
    assert_same(reads(bytes(data), []))


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_hostile_bytes_are_read_as_the_decoder_reads_them(pieces):
    assert_same(pieces)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 32, 300])
def test_plain_requests_need_no_decoder_however_many_come_in_one_read(count, monkeypatch):
    monkeypatch.setattr(dispatch, "Decoder", None)
    params = {"a": "b", "c": 1, "d": None, "e": ["f", "g"], "h": [], "i": True, "j": 0.5}
    data = b"".join(pack(0, msgid, "m", [params]) for msgid in range(count))
    found = RequestDecoder().receive(data)
    assert all(type(message) is PlainRequest for message in found)
    assert [message.msgid for message in found] == [*range(count)]
    assert all(message.params == [params] for message in found)


def test_the_largest_plain_request_is_within_every_limit():
    text = ["b"] * limits.MAX_CONTAINER_ITEMS
    request = pack(0, 1, "m", [{str(n): text for n in range(limits.MAX_CONTAINER_ITEMS)}])
    assert len(request) < limits.READ_BYTES
    assert [type(message) for message in RequestDecoder().receive(request)] == [PlainRequest]
    assert [type(message) for message in Decoder().receive(request)] == [Request]


@pytest.mark.parametrize("header", [b"\xdd", b"\xdf", b"\xdb"])
@pytest.mark.parametrize(
    "where", [b"", b"\x94\x00\x01\xa1m", b"\x94\x00\x01\xa1m\x91", b"\x94\x00\x01\xa1m\x91\x81\xa1a"]
)
def test_a_header_that_claims_4_gib_allocates_nothing(where, header):
    tracemalloc.start()
    try:
        RequestDecoder().receive(where + header + b"\xff\xff\xff\xff" + b"\xa1a")
        RequestDecoder().receive(PLAIN * 2 + where + header + b"\xff\xff\xff\xff" + b"\xa1a")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_of_a_read_that_ends_within_a_request_only_that_takes_other_decoding(monkeypatch):
    decoder, rest = RequestDecoder(), []
    receive = Decoder.receive
    monkeypatch.setattr(Decoder, "receive", lambda self, data: rest.append(data) or receive(self, data))
    assert len(decoder.receive(PLAIN * 5 + PLAIN[:9])) == 5
    assert decoder.unfinished is not None
    assert len(decoder.receive(PLAIN[9:])) == 1
    assert len(decoder.receive(PLAIN)) == 1
    assert rest == [PLAIN[:9], PLAIN[9:]]


def test_after_a_failure_nothing_more_is_decoded():
    decoder = RequestDecoder()
    assert decoder.receive(b"\xc1") == []
    assert decoder.receive(PLAIN) == []
    assert decoder.unfinished.failure is not None


def test_a_read_of_the_smallest_requests_is_counted_in_the_header_that_is_put_before_them():
    smallest = pack(0, 0, "", [{}])
    assert limits.READ_BYTES // len(smallest) < 2**16
    data = smallest * (limits.READ_BYTES // len(smallest))
    assert len(RequestDecoder().receive(data)) == limits.READ_BYTES // len(smallest)


def test_messages_are_counted_up_to_the_first_that_is_not_whole():
    assert whole_messages(PLAIN) == (1, len(PLAIN))
    assert whole_messages(PLAIN * 3 + PLAIN[:-1]) == (3, 3 * len(PLAIN))
    assert whole_messages(PLAIN + b"\xc1" + PLAIN) == (1, len(PLAIN))
    assert whole_messages(PLAIN[:-1]) == (0, 0)
    assert whole_messages(b"\x91" * 5000) == (0, 0)
    assert whole_messages(b"") == (0, 0)
