from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.store.entries import (
    MAX_KEY_BYTES,
    check_limit,
    count_key,
    decode_key,
    encode_path,
    encode_prefix,
    key_range,
    parent_count_key,
    readable,
)
from agentd_client.errors import InvalidPathError

# Bytes near the escape characters.
PART = st.binary(min_size=1, max_size=6) | st.lists(
    st.sampled_from([b"\0", b"\1", b"\2", b"a"]), min_size=1, max_size=5
).map(b"".join)
PATH = st.lists(PART, min_size=1, max_size=4).map(tuple)


@given(PATH)
def test_a_path_decodes_to_the_parts_it_was_made_of(path: tuple[bytes, ...]) -> None:
    assert decode_key(encode_path(path)) == path


@given(PATH, PATH)
def test_encoding_paths_is_injective_and_keeps_their_order(
    left: tuple[bytes, ...], right: tuple[bytes, ...]
) -> None:
    assert (encode_path(left) < encode_path(right)) == (left < right)
    assert (encode_path(left) == encode_path(right)) == (left == right)


@given(PATH, PATH)
def test_a_prefix_matches_whole_parts_only(prefix: tuple[bytes, ...], path: tuple[bytes, ...]) -> None:
    is_below = path[: len(prefix)] == prefix
    assert encode_path(path).startswith(encode_prefix(prefix)) == is_below
    assert (encode_path(path) in key_range(prefix)) == is_below


@given(PATH)
def test_an_entry_is_counted_under_its_path_without_the_last_part(path: tuple[bytes, ...]) -> None:
    assert parent_count_key(encode_path(path)) == count_key(path[:-1])


def test_text_counts_as_its_utf_8_bytes_and_a_lone_text_as_one_part() -> None:
    assert encode_path("é") == encode_path(["é"]) == encode_path(("é".encode(),))
    assert encode_prefix([]) == encode_prefix(())


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ((), "at least one part"),
        ("", "part 1 of a path is empty"),
        (("a", b""), "part 2 of a path is empty"),
        (("a",) * 9, "at most 8 parts, not 9"),
        (b"abc", "part 1 of a path is int"),
        (("a", 1), "part 2 of a path is int"),
        (("a", bytearray(b"b")), "not tuple"),
        (["a", ["b"]], "not list"),
        (5, "not int"),
        (None, "not NoneType"),
        ("\ud800", "UTF-8 cannot hold"),
        ("x" * MAX_KEY_BYTES, "at most 511 bytes"),
        (b"", "at least one part"),
    ],
)
def test_an_invalid_path_is_refused_with_the_reason(path: object, told: str) -> None:
    with pytest.raises(InvalidPathError, match=told):
        encode_path(path)  # type: ignore[arg-type]


def test_a_prefix_is_refused_for_the_same_reasons() -> None:
    with pytest.raises(InvalidPathError, match="not int"):
        encode_prefix(5)  # type: ignore[arg-type]


def test_the_longest_path_takes_511_bytes_once_encoded() -> None:
    assert len(encode_path("x" * 509)) == MAX_KEY_BYTES
    with pytest.raises(InvalidPathError, match="not 512"):
        encode_path("x" * 510)
    with pytest.raises(InvalidPathError):
        encode_path((b"\0" * 255,))  # escaped, twice as long


def test_every_path_has_a_readable_form() -> None:
    assert readable(encode_path(("sessions", b"\xff", "a\nb"))) == "sessions/0xff/0x610a62"
    assert readable(count_key("sessions")) == "the count of sessions"
    assert readable(count_key(())) == "the count of the whole store"
    assert readable(b"h") == "the header record"


@pytest.mark.parametrize("limit", [-1, 1.0, True, "1"])
def test_a_limit_is_a_whole_number_from_0(limit: object) -> None:
    with pytest.raises(ValueError, match="whole number"):
        check_limit(limit)  # type: ignore[arg-type]
