from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd_client.errors import InvalidParamsError, ProtocolError, UnknownMethodError
from agentd_client.protocol import limits
from agentd_client.protocol.codec import Decoder, Encoder, Notification, RefusedRequest, Request, Response

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXT | st.binary(max_size=40)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


def depth(value: object) -> int:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if items is None else 1 + max(map(depth, items), default=0)


def same(one: object, other: object) -> bool:
    return msgpack.packb(one) == msgpack.packb(other)  # NaN is equal to itself here


SHALLOW = VALUES.filter(lambda value: depth(value) <= limits.MAX_NESTING - 3)
MSGIDS = st.integers(0, limits.MAX_MSGID)
METHODS = st.text(st.characters(exclude_categories=["Cs"]), max_size=limits.MAX_METHOD_CHARACTERS)


def pack(*message: object) -> bytes:
    return msgpack.packb(list(message))


def decode_in_pieces(data: bytes, cuts: list[int]) -> tuple[list[object], Decoder]:
    decoder = Decoder()
    found: list[object] = []
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in zip(edges, edges[1:], strict=False):
        found += decoder.receive(data[start:end])
    return found, decoder


@given(MSGIDS, METHODS, st.dictionaries(TEXT, SHALLOW, max_size=6), st.lists(st.integers(0), max_size=6))
def test_a_request_comes_out_as_it_went_in_however_it_is_cut(msgid, method, params, cuts):
    (request,), decoder = decode_in_pieces(Encoder().request(msgid, method, params), cuts)
    assert type(request) is Request
    assert same([*request], [msgid, method, [params]])
    assert decoder.failure is None
    assert not decoder.has_partial_message


@given(st.lists(st.tuples(MSGIDS, SHALLOW, st.booleans()), max_size=10), st.lists(st.integers(0), max_size=6))
def test_replies_follow_each_other_unframed(replies, cuts):
    encoder = Encoder()
    data = b"".join(
        encoder.error(msgid, value) if is_error else encoder.result(msgid, value)
        for msgid, value, is_error in replies
    )
    found, decoder = decode_in_pieces(data, cuts)
    assert all(type(message) is Response for message in found)
    expected = [
        [msgid, value, None] if is_error else [msgid, None, value] for msgid, value, is_error in replies
    ]
    assert same([[*message] for message in found], expected)
    assert decoder.failure is None


@given(MSGIDS, VALUES)
def test_a_result_encoded_beforehand_makes_the_same_bytes(msgid, value):
    encoder = Encoder()
    assert encoder.result_of(msgid, encoder.encoded(value)) == encoder.result(msgid, value)


@given(METHODS, st.dictionaries(TEXT, SHALLOW, max_size=6), st.lists(st.integers(0), max_size=6))
def test_a_notification_comes_out_as_it_went_in_however_it_is_cut(method, params, cuts):
    (notification,), decoder = decode_in_pieces(Encoder().notification(method, params), cuts)
    assert type(notification) is Notification
    assert same([*notification], [method, [params]])
    assert decoder.failure is None
    assert not decoder.has_partial_message


def test_notifications_stand_between_replies_unframed():
    encoder = Encoder()
    data = encoder.result(1, True) + encoder.notification("event", {"a": 1}) + encoder.error(2, [1, "x"])
    assert Decoder().receive(data) == [
        Response(1, None, True),
        Notification("event", [{"a": 1}]),
        Response(2, [1, "x"], None),
    ]


def test_the_notification_in_the_protocol_document_is_what_is_sent():
    document = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    ((shown, sent),) = re.findall(r"^`(\[2, [^`]+)`:\n\n    ([0-9a-f ]+)\n", document, re.MULTILINE)
    _, method, (params,) = json.loads(shown.replace("nil", "null"))
    assert Encoder().notification(method, params) == bytes.fromhex(sent)


def test_a_notification_is_decoded():
    assert Decoder().receive(pack(2, "happened", [{"a": 1}])) == [Notification("happened", [{"a": 1}])]


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_hostile_bytes_raise_nothing_and_hold_no_more_than_the_limits(pieces):
    decoder = Decoder()
    for piece in pieces:
        for message in decoder.receive(piece):
            assert isinstance(message, Request | Response | Notification | RefusedRequest)
            assert depth([*message]) < limits.MAX_NESTING


@given(VALUES, st.integers(0), st.integers(0, 255))
def test_a_changed_byte_is_another_message_or_a_failure_never_an_exception(value, where, byte):
    data = bytearray(pack(0, 1, "method", [{"value": value}]))
    data[where % len(data)] = byte
    decoder = Decoder()
    messages = decoder.receive(bytes(data))
    assert messages or decoder.failure is not None or decoder.has_partial_message


NOT_MESSAGES = {
    "nil": msgpack.packb(None),
    "a number": b"\x05",
    "a map": msgpack.packb({"a": 1}),
    "an empty array": pack(),
    "a type that is text": pack("0", 1, "m", []),
    "a type that is a boolean": pack(False, 1, "m", []),
    "a type that is a float": pack(0.0, 1, "m", []),
    "an unknown type": pack(3, 1, "m", []),
    "a request of three": pack(0, 1, "m"),
    "a request of five": pack(0, 1, "m", [], None),
    "a msgid that is a boolean": pack(0, True, "m", []),
    "a msgid that is a float": pack(0, 1.0, "m", []),
    "a negative msgid": pack(0, -1, "m", []),
    "a msgid of more than 32 bits": pack(0, 2**32, "m", []),
    "a response with a msgid of more than 32 bits": pack(1, 2**32, None, None),
    "a response with a msgid that is a boolean": pack(1, True, None, None),
    "a response of three": pack(1, 1, None),
    "a notification of two": pack(2, "m"),
    "a notification of four": pack(2, 1, "m", []),
    "a notification that is nested too deeply": pack(2, "m", [[[[[[[[1]]]]]]]]),
    "a notification with the same key twice": b"\x93\x02\xa1m\x91\x82\xa1a\x01\xa1a\x01",
    "one with the same key twice after one that is no text": b"\x93\x02\xa1m\x91\x83\xc4\x01z\x01\xa1a\x01\xa1a\x01",
    "a response with a key that is bytes": pack(1, 1, None, {b"a": 1}),
    "the byte that MessagePack never uses": b"\xc1",
    "text that is not UTF-8": b"\x94\x00\x01\xa1\xff\x90",
    "a surrogate as UTF-8": b"\x94\x00\x01\xa3\xed\xa0\x80\x90",
    "a timestamp": b"\x94\x00\x01\xa1m\x91\x81\xa1a\xd6\xff\x00\x00\x00\x00",
    "a timestamp of no length": b"\x94\x00\x01\xa1m\x91\x81\xa1a\xc7\x00\xff",
    "an extension": b"\x94\x00\x01\xa1m\x91\x81\xa1a\xd4\x05\x00",
    "an extension of no length": b"\x94\x00\x01\xa1m\x91\x81\xa1a\xc7\x00\x05",
    "the same key twice": b"\x94\x00\x01\xa1m\x91\x82\xa1a\x01\xa1a\x01",
    "the same key twice, deeper": b"\x94\x00\x01\xa1m\x91\x81\xa1b\x82\xa1a\x01\xa1a\x02",
    "the same key twice, spelled differently": b"\x94\x00\x01\xa1m\x91\x82\xa1a\x01\xd9\x01a\x02",
    "a key that is a number": pack(0, 1, "m", [{1: 1}]),
    "a key that is bytes": pack(0, 1, "m", [{b"a": 1}]),
    "a key that is an array": b"\x94\x00\x01\xa1m\x91\x81\x90\x01",
    "an array of 65": pack(0, 1, "m", [list(range(65))]),
    "a map of 65": pack(0, 1, "m", [{str(n): n for n in range(65)}]),
    "params of 65": pack(0, 1, "m", [None] * 65),
    "a header of 4 GiB of array": b"\x94\x00\x01\xa1m\xdd\xff\xff\xff\xff",
    "a header of 4 GiB of map": b"\x94\x00\x01\xa1m\xdf\xff\xff\xff\xff",
    "a header of 4 GiB of extension": b"\x94\x00\x01\xa1m\xc9\xff\xff\xff\xff\x05",
    "arrays in arrays in arrays": b"\x91" * 5000,
    "arrays of 64 in arrays of 64": b"\xdc\x00\x40" * 5000,
}


@pytest.mark.parametrize("data", NOT_MESSAGES.values(), ids=NOT_MESSAGES)
def test_what_is_no_message_ends_the_decoding_after_those_before_it(data):
    decoder = Decoder()
    good = pack(0, 7, "m", [])
    assert decoder.receive(good + data + good) == [Request(7, "m", [])]
    assert isinstance(decoder.failure, ProtocolError)
    assert decoder.receive(good) == []


@pytest.mark.parametrize("data", NOT_MESSAGES.values(), ids=NOT_MESSAGES)
def test_what_is_no_message_is_none_byte_by_byte_either(data):
    decoder = Decoder()
    assert [message for byte in data for message in decoder.receive(bytes([byte]))] == []
    assert decoder.failure is not None


NOTIFICATIONS_OF_ANOTHER_FORM = {
    "a method that is bytes": pack(2, b"nvim_set_client_info", ["x", {}, "remote", {}, {}]),
    "all text as bytes": pack(
        2, b"nvim_set_client_info", [b"x", {b"major": 1}, b"remote", {b"a": {b"b": 1}}, {}]
    ),
    "a key that is a number": pack(2, "m", [{1: 1}]),
    "a key that is an array": b"\x93\x02\xa1m\x91\x81\x90\x01",
    "params that are a map": pack(2, "m", {"a": 1}),
    "params that are nil": pack(2, "m", None),
    "params that are text": pack(2, "m", "x"),
    "a method that is nil": pack(2, None, []),
    "a method that is a number": pack(2, 1, "m"),
    "a method that is too long": pack(2, "m" * 65, []),
}


@pytest.mark.parametrize("data", NOTIFICATIONS_OF_ANOTHER_FORM.values(), ids=NOTIFICATIONS_OF_ANOTHER_FORM)
def test_a_notification_of_another_form_is_one_without_effect(data):
    decoder = Decoder()
    good = pack(0, 7, "m", [{"a": 1}])
    before, ignored, after = decoder.receive(good + data + good)
    assert before == after == Request(7, "m", [{"a": 1}])
    assert type(ignored) is Notification
    (ignored,) = (message for byte in data for message in decoder.receive(bytes([byte])))
    assert type(ignored.method) is str
    assert type(ignored.params) is list
    assert decoder.failure is None
    assert not decoder.has_partial_message


REQUESTS_THAT_CANNOT_BE_CARRIED_OUT = {
    "params that are a map": (pack(0, 9, "m", {}), InvalidParamsError, "holds one map, not map"),
    "params that are nil": (pack(0, 9, "m", None), InvalidParamsError, "holds one map, not nil"),
    "params that are text": (pack(0, 9, "m", "x"), InvalidParamsError, "holds one map, not text"),
    "a method that is bytes": (pack(0, 9, b"m", []), UnknownMethodError, "text (str), not bytes"),
    "a method that is nil": (pack(0, 9, None, []), UnknownMethodError, "text (str), not nil"),
    "a method that is too long": (pack(0, 9, "m" * 65, []), UnknownMethodError, "at most 64 characters"),
}


@pytest.mark.parametrize(
    ("data", "error", "words"),
    REQUESTS_THAT_CANNOT_BE_CARRIED_OUT.values(),
    ids=REQUESTS_THAT_CANNOT_BE_CARRIED_OUT,
)
def test_a_whole_request_of_another_form_is_one_to_refuse(data, error, words):
    decoder = Decoder()
    refused, after = decoder.receive(data + pack(0, 7, "m", []))
    assert (type(refused), refused.msgid, type(refused.error)) == (RefusedRequest, 9, error)
    assert words in refused.error.sentence
    assert after == Request(7, "m", [])
    assert decoder.failure is None


@pytest.mark.parametrize("byte_by_byte", [False, True])
@pytest.mark.parametrize(
    ("data", "msgid"),
    [
        (pack(0, 5, "m", [{b"a": 1}]), 5),
        (pack(0, 2**32 - 1, "m", [list(range(65))]), 2**32 - 1),
        (pack(0, 300, "m", ["x" * 300, {"a": "x"}])[:-3] + b"\xc1", 300),
        (b"\xdd\x00\x00\x00\x04\xd3" + bytes(8) + b"\xcf" + (77).to_bytes(8) + b"\xa1m\x91\xc1", 77),
        (b"\x94\x00\x04\xa1m\x91\x82\xa1a\x01\xa1a\x01", 4),
        (pack(0, 6, "m"), 6),
        (pack(0, 6, "m", [], 1), 6),
        (pack(0, -1, "m", [{}]), None),
        (pack(0, "5", "m", [{}]), None),
        (pack(0, True, "m", [{}]), None),
        (pack(0, 2**32, "m", [{}]), None),
        (pack(1, 5, None), None),
        (pack(2, 5), None),
        (pack(3, 5), None),
        (pack(0), None),
        (b"\x94\x00\xdd\xff\xff\xff\xff", None),
        (b"\x94\x00\xdb\xff\xff\xff\xff" + b"x" * 70_000, None),
        (b"\xdd\xff\xff\xff\xff\xc1", None),
        (b"\xc1", None),
        (b"GET / HTTP/1.1", None),
    ],
)
def test_the_msgid_of_a_request_that_failed_is_known_where_its_beginning_tells(data, msgid, byte_by_byte):
    decoder = Decoder()
    before = pack(0, 1, "m", [{"a": 2}])
    if byte_by_byte:
        for byte in before + data:
            decoder.receive(bytes([byte]))
    else:
        feed(decoder, before + data + b"\x00" * 50)
    assert decoder.failure is not None
    assert decoder.msgid_of_rest == msgid


@pytest.mark.parametrize("cut", range(3, 19))
def test_the_msgid_of_an_unfinished_request_is_known_once_it_is_there(cut):
    decoder = Decoder()
    decoder.receive(pack(0, 8, "m", []) + pack(0, 70, "method", [{"a": "text"}])[:cut])
    assert decoder.has_partial_message
    assert decoder.msgid_of_rest == 70


def test_every_cause_of_a_failure_is_one_of_a_few():
    """A log that keeps each of them apart stays bounded, whatever numbers and bytes a peer makes up."""
    causes = set()
    for number in range(200):
        for data in (
            b"\x94\x00\x01\xa1m\xdd" + (65 + number).to_bytes(4),
            b"\x94\x00\x01\xa1m\xdf" + (65 + number).to_bytes(4),
            b"\x94\x00\x01\xa1m\xdb" + (2**31 + number).to_bytes(4),
            b"\x94\x00\x01\xa1m\xc9" + (1 + number).to_bytes(4) + b"\x05",
            pack(3 + number),
            bytes([0xA1, 0x80 + number % 64]),
        ):
            decoder = Decoder()
            decoder.receive(data)
            causes.add(str(decoder.failure))
    assert len(causes) <= 8, causes


def test_the_reason_of_a_failure_never_quotes_the_peer():
    secret = "v4.local.secret"
    for params in ([{secret: 1, 1: 2}], [{secret: [[[[[[[secret]]]]]]]}], {secret: secret}):
        decoder = Decoder()
        decoder.receive(pack(0, 1, "m", params))
        assert secret not in str(decoder.failure)
    decoder = Decoder()
    decoder.receive(b"\xa8secret\xff\xff")
    assert str(decoder.failure) == "malformed message: text that is not UTF-8"


def nested(containers: int) -> bytes:
    # The message, params and the map are three; the rest are arrays in the map.
    return b"\x94\x00\x01\xa1m\x91\x81\xa1a" + b"\x91" * (containers - 3) + b"\x01"


@pytest.mark.parametrize("as_map", [False, True])
def test_nesting_is_allowed_to_its_limit_and_no_further(as_map):
    def nest(containers: int) -> bytes:
        data = nested(containers)
        return data if not as_map else data[:9] + b"\x81\xa1k" * (containers - 3) + b"\x01"

    decoder = Decoder()
    assert len(decoder.receive(nest(limits.MAX_NESTING))) == 1
    assert decoder.receive(nest(limits.MAX_NESTING + 1)) == []
    assert "nested" in str(decoder.failure)


def test_nesting_in_any_place_of_any_message_counts():
    deep: object = 1
    for _ in range(limits.MAX_NESTING):
        deep = [deep]
    for message in (
        (0, 1, "m", deep),
        (0, 1, "m", [{}, {"a": 1}, {"b": deep}]),
        (1, 1, deep, None),
        (1, 1, None, {"a": deep}),
        (2, "m", [deep]),
    ):
        decoder = Decoder()
        assert decoder.receive(pack(*message)) == []
        assert "nested" in str(decoder.failure)


@pytest.mark.parametrize("header", [b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"])
def test_a_header_that_claims_4_gib_allocates_nothing_and_ends_at_the_limit(header):
    decoder = Decoder()
    tracemalloc.start()
    try:
        assert decoder.receive(b"\x94\x00\x01\xa1m\x91" + header) == []
        assert decoder.failure is None
        assert decoder.has_partial_message
        assert feed(decoder, b"x" * limits.MAX_MESSAGE_BYTES) == []
        assert decoder.failure is not None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def sized(size: int) -> bytes:
    data = pack(0, 1, "m", [{"a": "x" * (size - 12)}])
    assert len(data) == size
    return data


def feed(decoder: Decoder, data: bytes) -> list[object]:
    found: list[object] = []
    for start in range(0, len(data), limits.READ_BYTES):
        found += decoder.receive(data[start : start + limits.READ_BYTES])
    return found


def test_a_message_is_allowed_to_its_limit_and_no_further():
    decoder = Decoder()
    assert len(feed(decoder, sized(limits.MAX_MESSAGE_BYTES) * 3)) == 3
    assert feed(decoder, sized(limits.MAX_MESSAGE_BYTES + 1)) == []
    assert "65536 bytes" in str(decoder.failure)


def test_an_unfinished_message_is_refused_once_it_is_over_the_limit():
    decoder = Decoder()
    text = b"\x94\x00\x01\xa1m\x92" + b"\xda\xff\x00" + b"x" * 0xFF00
    assert feed(decoder, text) == []
    assert decoder.failure is None
    assert decoder.receive(b"\xda\xff\x00" + b"x" * 600) == []
    assert "65536 bytes" in str(decoder.failure)


def test_full_reads_of_pipelined_messages_never_overflow_the_buffer():
    decoder = Decoder()
    assert decoder.receive(sized(limits.MAX_MESSAGE_BYTES)[:-1]) == []
    pipelined = sized(limits.MAX_MESSAGE_BYTES)[-1:] + pack(0, 2, "m", []) * 8191
    found = feed(decoder, pipelined[: limits.READ_BYTES])
    assert decoder.failure is None
    assert found[0].msgid == 1


def containers(count: int, empty: bytes) -> bytes:
    # The message, params, and two arrays that hold the others.
    first = min(count - 4, limits.MAX_CONTAINER_ITEMS)
    rest = count - 4 - first
    arrays = b"\xdc" + first.to_bytes(2) + empty * first + b"\xdc" + rest.to_bytes(2) + empty * rest
    return b"\x94\x00\x01\xa1m\x92" + arrays


@pytest.mark.parametrize("empty", [b"\x90", b"\x80"], ids=["arrays", "maps"])
def test_arrays_and_maps_are_counted_for_each_message_however_it_is_cut(empty):
    whole = containers(limits.MAX_CONTAINERS, empty)
    decoder = Decoder()
    assert len(decoder.receive(whole * 3)) == 3
    assert len([message for byte in whole for message in decoder.receive(bytes([byte]))]) == 1
    assert decoder.receive(containers(limits.MAX_CONTAINERS + 1, empty)) == []
    assert str(decoder.failure) == "malformed message: more than 128 arrays and maps"


@pytest.mark.parametrize("empty", [b"\x90", b"\x80"], ids=["arrays", "maps"])
def test_too_many_arrays_and_maps_end_the_connection_before_the_message_is_whole(empty):
    decoder = Decoder()
    unfinished = b"\x94\x00\x01\xa1m\xdc\x00\x40" + (b"\xdc\x00\x40" + empty * 64) * 2
    assert decoder.receive(unfinished[:-4]) == []
    assert decoder.failure is None
    assert decoder.receive(unfinished[-4:]) == []
    assert "arrays and maps" in str(decoder.failure)


def test_one_read_of_the_smallest_messages_is_short():
    assert limits.READ_BYTES // len(pack(2, "", [])) <= 4096


def test_a_partial_message_is_known_as_such():
    decoder = Decoder()
    data = pack(0, 1, "m", [{"a": "text"}])
    assert not decoder.has_partial_message
    decoder.receive(data[:1])
    assert decoder.has_partial_message
    decoder.receive(data[1:] + data)
    assert not decoder.has_partial_message
    decoder.receive(data + data[:-1])
    assert decoder.has_partial_message


def test_limits_of_msgid_method_and_items_are_allowed():
    method = "m" * limits.MAX_METHOD_CHARACTERS
    params = [{str(n): n for n in range(limits.MAX_CONTAINER_ITEMS)}]
    request = Request(limits.MAX_MSGID, method, params)
    assert Decoder().receive(pack(0, *request)) == [request]
    assert Decoder().receive(pack(0, 0, "m", [[]])) == [Request(0, "m", [[]])]


@pytest.mark.parametrize("value", [object(), 2**64, "\ud800", "x" * limits.MAX_MESSAGE_BYTES])
def test_what_cannot_be_encoded_is_refused_and_the_next_message_is_whole(value):
    encoder = Encoder()
    for encode in (
        lambda: encoder.request(1, "m", {"a": "b", "c": value}),
        lambda: encoder.notification("m", {"a": "b", "c": value}),
        lambda: encoder.result(1, {"a": "b", "c": value}),
        lambda: encoder.error(1, [1, value]),
        lambda: encoder.result_of(1, encoder.encoded({"a": "b", "c": value})),
    ):
        with pytest.raises((ValueError, TypeError, OverflowError)):
            encode()
        assert encoder.result(2, True) == pack(1, 2, None, True)


def test_a_result_that_fits_only_without_its_envelope_is_refused():
    encoder = Encoder()
    head = len(encoder.result_of(limits.MAX_MSGID, b""))
    with pytest.raises(ValueError, match="65"):
        encoder.encoded("x" * (limits.MAX_MESSAGE_BYTES - head - 2))
    encoded = encoder.encoded("x" * (limits.MAX_MESSAGE_BYTES - head - 3))
    assert len(encoder.result_of(limits.MAX_MSGID, encoded)) == limits.MAX_MESSAGE_BYTES
