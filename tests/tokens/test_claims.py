from __future__ import annotations

import json
import secrets

import pyseto
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.tokens import Claims, TokenError, encrypt, footer_for, open_token, parse_token, seal_token

KEY = bytes(range(32))
KEY_ID = "A" * 22
CLAIMS = Claims(iss="agent", sub="1000", jti="session", iat=1.25, exp=61.25, gen=0)


def sealed(claims: Claims = CLAIMS) -> str:
    return seal_token(KEY, KEY_ID, claims, implicit=b"agent", nonce=secrets.token_bytes(32))


milliseconds = st.integers(min_value=0, max_value=4_000_000_000_000).map(lambda value: value / 1000)


@given(iat=milliseconds, exp=st.none() | milliseconds, gen=st.integers(0, 2**31), name=st.text(max_size=20))
def test_claims_round_trip(iat: float, exp: float | None, gen: int, name: str):
    claims = Claims(name, name, name, iat, exp, gen)
    assert open_token(KEY, parse_token(sealed(claims)), implicit=b"agent") == claims


def test_the_oracle_reads_our_claims_as_registered_claims():
    opened = pyseto.decode(pyseto.Key.new(4, "local", KEY), sealed(), implicit_assertion=b"agent")
    assert json.loads(opened.payload) == {
        "iss": "agent",
        "sub": "1000",
        "jti": "session",
        "iat": "1970-01-01T00:00:01.250+00:00",
        "exp": "1970-01-01T00:01:01.250+00:00",
        "gen": 0,
    }
    assert json.loads(opened.footer) == {"kid": KEY_ID}


def test_no_expiry_means_no_exp_claim():
    assert open_token(KEY, parse_token(sealed(CLAIMS._replace(exp=None))), implicit=b"agent").exp is None


def test_the_key_id_is_read_without_a_key():
    assert parse_token(sealed()).key_id == KEY_ID


@pytest.mark.parametrize(
    "footer", [b"", b"{}", b'{"kid":1}', b'{"kid": "%s"}' % (b"A" * 22), footer_for("A" * 21), b"[" * 64]
)
def test_a_footer_of_another_form_is_refused_unread(footer: bytes):
    with pytest.raises(TokenError):
        parse_token(encrypt(KEY, b"{}", nonce=bytes(32), footer=footer))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"\xff",
        b'{"iss":"a","sub":"s","jti":"j","iat":"soon","gen":0}',
        b'{"iat":1}',
        b'{"iss":"\xff","sub":"s","jti":"j","iat":"2025-01-01T00:00:00Z","gen":0}',
        b'{"iss":"a","sub":"s","jti":"j","iat":"2025-01-01T00:00:00","gen":0}',
        b'{"iss":"a","sub":"s","jti":"j","iat":"2025-01-01T00:00:00Z","exp":"2025-01-01T00:00:00","gen":0}',
        b'{"iss":"a","sub":"s","jti":"j","iat":"2025-01-01T00:00:00Z","gen":"0"}',
    ],
)
def test_claims_of_another_form_are_refused(payload: bytes):
    with pytest.raises(TokenError, match="claims"):
        open_token(
            KEY, parse_token(encrypt(KEY, payload, nonce=bytes(32), footer=footer_for(KEY_ID))), implicit=b""
        )
