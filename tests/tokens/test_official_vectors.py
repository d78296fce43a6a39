from __future__ import annotations

import pytest

from agentd.tokens import TokenError, decode, decrypt, encrypt, split
from tests.vectors import official

FIELDS = {
    "name",
    "expect-fail",
    "nonce",
    "key",
    "token",
    "payload",
    "footer",
    "implicit-assertion",
    "public-key",
    "secret-key",
    "secret-key-seed",
    "secret-key-pem",
    "public-key-pem",
}


def test_every_official_local_vector_encrypts_and_decrypts():
    seen = 0
    for vector in official("v4.json"):
        assert set(vector) <= FIELDS, "a vector says something that this test does not check"
        if not vector["name"].startswith("4-E-"):
            continue
        key, implicit = bytes.fromhex(vector["key"]), vector["implicit-assertion"].encode()
        payload, footer = vector["payload"].encode(), vector["footer"].encode()
        made = encrypt(key, payload, nonce=bytes.fromhex(vector["nonce"]), footer=footer, implicit=implicit)
        assert made == vector["token"], vector["name"]
        body, found = map(decode, split(vector["token"]))
        assert (found, decrypt(key, body, found, implicit=implicit)) == (footer, payload)
        seen += 1
    assert seen == 9


def test_every_official_failure_vector_is_refused():
    seen = 0
    for vector in official("v4.json"):
        if not vector["expect-fail"]:
            continue
        # 4-F-1 is a v4.local key beside a v4.public token; the others are malformed v4.local tokens.
        key = bytes.fromhex(vector.get("key") or vector["secret-key-seed"])
        with pytest.raises(TokenError):
            decrypt(key, *map(decode, split(vector["token"])), implicit=vector["implicit-assertion"].encode())
        seen += 1
    assert seen == 5
