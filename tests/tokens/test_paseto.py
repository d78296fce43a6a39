from __future__ import annotations

import json
import random
import secrets
from pathlib import Path

import pyseto
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.tokens import HEADER, TokenError, decode, decrypt, encrypt, pre_authentication_encoding, split

KEY = bytes(range(32))
ROUND_TRIPS = 10_000


def token_of(payload: bytes = b"payload", **more: bytes) -> str:
    return encrypt(KEY, payload, nonce=secrets.token_bytes(32), **more)


def opened(key: bytes, token: str, implicit: bytes = b"") -> tuple[bytes, bytes]:
    body, footer = map(decode, split(token))
    return decrypt(key, body, footer, implicit=implicit), footer


def test_own_vectors_made_with_the_oracle_open():
    vectors = json.loads(Path(__file__).with_name("vectors.json").read_text())["tests"]
    for vector in vectors:
        key, implicit = bytes.fromhex(vector["key"]), bytes.fromhex(vector["implicit"])
        payload, footer = bytes.fromhex(vector["payload"]), bytes.fromhex(vector["footer"])
        assert opened(key, vector["token"], implicit) == (payload, footer)
        nonce = decode(split(vector["token"])[0])[:32]
        again = encrypt(key, payload, nonce=nonce, footer=footer, implicit=implicit)
        assert again == vector["token"]
    assert len(vectors) == 10


def test_ten_thousand_random_payloads_round_trip_with_the_oracle_both_ways():
    draw = random.Random(20250101)
    for _ in range(ROUND_TRIPS):
        key, payload = draw.randbytes(32), draw.randbytes(draw.randrange(1, 300))
        footer, implicit = draw.randbytes(draw.randrange(0, 40)), draw.randbytes(draw.randrange(0, 20))
        theirs = pyseto.Key.new(4, "local", key)
        ours = encrypt(key, payload, nonce=draw.randbytes(32), footer=footer, implicit=implicit)
        found = pyseto.decode(theirs, ours, implicit_assertion=implicit)
        assert (found.payload, found.footer) == (payload, footer)
        made = pyseto.encode(theirs, payload, footer=footer, implicit_assertion=implicit).decode()
        assert opened(key, made, implicit) == (payload, footer)


@given(payload=st.binary(max_size=400), footer=st.binary(max_size=80), implicit=st.binary(max_size=40))
def test_encrypted_payloads_decrypt(payload: bytes, footer: bytes, implicit: bytes):
    token = token_of(payload, footer=footer, implicit=implicit)
    assert opened(KEY, token, implicit) == (payload, footer)


@given(text=st.text(max_size=200) | st.text(alphabet="v4.local-_AQg=", max_size=200).map(HEADER.__add__))
def test_arbitrary_text_is_refused_and_nothing_else_is_raised(text: str):
    with pytest.raises(TokenError):
        opened(KEY, text)


def test_every_single_bit_change_of_a_token_is_refused():
    token = token_of(footer=b"footer")
    for at, character in enumerate(token.encode()):
        for bit in range(8):
            changed = bytearray(token.encode())
            changed[at] = character ^ (1 << bit)
            with pytest.raises(TokenError):
                opened(KEY, changed.decode("latin-1"))


@pytest.mark.parametrize("footer", [b"", b"f", b"fo", b"foo"])
@pytest.mark.parametrize("tail", ["A", "=", "==", " ", "\n", ".", ".AA", "é", "+", "/"])
def test_a_token_with_anything_appended_is_refused(footer: bytes, tail: str):
    with pytest.raises(TokenError):
        opened(KEY, token_of(footer=footer) + tail)


def test_non_canonical_base64url_is_refused():
    # 65 bytes leave two unused bits in the last character; the last of each pair below sets one of them.
    token = token_of(b"x")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]
    with pytest.raises(TokenError, match="canonical"):
        opened(KEY, twin)


def test_another_key_another_footer_and_another_implicit_assertion_are_refused():
    token = token_of(footer=b"one", implicit=b"agent")
    body, other_footer = token.rpartition(".")[0], token_of(footer=b"two").rpartition(".")[2]
    for key, text, implicit in [
        (bytes(32), token, b"agent"),
        (KEY, token, b"other"),
        (KEY, token, b""),
        (KEY, f"{body}.{other_footer}", b"agent"),
        (KEY, body, b"agent"),
    ]:
        with pytest.raises(TokenError):
            opened(key, text, implicit)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_keys_and_nonces_that_have_not_32_bytes_are_refused(size: int):
    with pytest.raises(ValueError, match="32 bytes"):
        encrypt(bytes(size), b"", nonce=bytes(32))
    with pytest.raises(ValueError, match="32 bytes"):
        encrypt(KEY, b"", nonce=bytes(size))
    with pytest.raises(ValueError, match="32 bytes"):
        opened(bytes(size), token_of())


def test_a_body_that_is_too_short_is_refused():
    with pytest.raises(TokenError, match="short"):
        opened(KEY, HEADER + "A" * 84)


def test_pre_authentication_encoding_as_the_specification_shows_it():
    assert pre_authentication_encoding() == bytes(8)
    assert pre_authentication_encoding(b"") == b"\x01" + bytes(15)
    assert pre_authentication_encoding(b"test") == b"\x01" + bytes(7) + b"\x04" + bytes(7) + b"test"
