from __future__ import annotations

import pyseto
import pytest

from agentd.crypto import TooLittleMemoryError
from agentd.keys import argon2, paserk
from agentd.keys.argon2 import MIB, Cost, CostError
from tests.vectors import official

KEY, SALT, NONCE = bytes(range(32)), bytes(range(16)), bytes(range(24))
CHEAP = Cost(argon2.MIN_MEMORY_BYTES, argon2.MIN_PASSES)
FIELDS = {"name", "expect-fail", "unwrapped", "password", "options", "paserk", "comment"}


def unwrap(text: str, passphrase: bytes) -> bytes:
    target = bytearray(32)
    paserk.unwrap_into(paserk.parse(text), passphrase, target)
    return bytes(target)


def test_every_official_vector_wraps_and_unwraps():
    seen = 0
    for vector in official("k4.local-pw.json"):
        assert set(vector) <= FIELDS, "a vector says something that this test does not check"
        if vector["expect-fail"]:
            continue
        key, passphrase = bytes.fromhex(vector["unwrapped"]), vector["password"].encode()
        assert unwrap(vector["paserk"], passphrase) == key, vector["name"]
        wrapped = paserk.parse(vector["paserk"])
        assert wrapped.cost == (vector["options"]["memlimit"], vector["options"]["opslimit"], 1)
        made = paserk.wrap(key, passphrase, salt=wrapped.salt, nonce=wrapped.nonce, cost=wrapped.cost)
        assert made == vector["paserk"], vector["name"]
        seen += 1
    assert seen == 3


def test_every_official_failure_vector_is_refused():
    refusals = []
    for vector in official("k4.local-pw.json"):
        if vector["expect-fail"]:
            with pytest.raises((paserk.PaserkError, paserk.NotGenuineError)) as refused:
                unwrap(vector["paserk"], vector["password"].encode())
            refusals.append(refused.type)
    assert refusals == [paserk.NotGenuineError, paserk.NotGenuineError, paserk.PaserkError]


def test_wrapped_keys_are_interoperable_with_another_implementation():
    mine = paserk.wrap(KEY, b"a passphrase", salt=SALT, nonce=NONCE, cost=CHEAP)
    opened = pyseto.Key.from_paserk(mine, password=b"a passphrase")
    assert opened.to_paserk() == pyseto.Key.new(4, "local", KEY).to_paserk()
    theirs = pyseto.Key.new(4, "local", KEY).to_paserk(
        password=b"another", memory_cost=CHEAP.memory_bytes // 1024, time_cost=CHEAP.passes, parallelism=1
    )
    assert unwrap(theirs, b"another") == KEY


@pytest.mark.parametrize("at", range(0, 120, 7))
def test_no_changed_byte_is_accepted(at):
    text = paserk.wrap(KEY, b"a passphrase", salt=SALT, nonce=NONCE, cost=CHEAP)
    data = bytearray(paserk.urlsafe_b64decode(text[len(paserk.HEADER) :]))
    data[at] ^= 1
    with pytest.raises((CostError, paserk.NotGenuineError)):
        unwrap(paserk.HEADER + paserk.urlsafe_b64encode(bytes(data)).decode(), b"a passphrase")


@pytest.mark.parametrize(
    ("cost", "names"),
    [
        (Cost(argon2.MIN_MEMORY_BYTES - argon2.KIB, 2), "memory"),
        (Cost(argon2.MAX_MEMORY_BYTES + argon2.KIB, 2), "memory"),
        (Cost(argon2.MIN_MEMORY_BYTES + 1, 2), "memory"),
        (Cost(2**63, 2), "memory"),
        (Cost(64 * MIB, 1), "time"),
        (Cost(64 * MIB, 65), "time"),
        (Cost(64 * MIB, 2**32 - 1), "time"),
        (Cost(1024 * MIB, 17), "memory times time"),
        (Cost(64 * MIB, 2, 0), "parallelism"),
        (Cost(64 * MIB, 2, 4), "parallelism"),
    ],
)
def test_a_cost_out_of_bounds_is_refused_by_name_before_any_work(cost, names, monkeypatch):
    def work(*args: object, **more: object) -> None:
        raise AssertionError("Argon2id ran")

    monkeypatch.setattr(paserk, "argon2id_into", work)
    text = paserk.HEADER + paserk._encode(SALT + paserk._COST.pack(*cost) + bytes(88))
    with pytest.raises(CostError, match=f"^{names} is "):
        paserk.parse(text)
    with pytest.raises(CostError, match=f"^{names} is "):
        paserk.wrap(KEY, b"a passphrase", salt=SALT, nonce=NONCE, cost=cost)
    with pytest.raises(CostError, match=f"^{names} is "):
        paserk.unwrap_into(paserk.Wrapped(SALT, cost, NONCE, bytes(32), bytes(32)), b"", bytearray(32))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: text[:-1] + "=",
        lambda text: text[:-1] + "+",
        lambda text: text[:-1] + "\n",
        lambda text: text[:-1] + "é",
        lambda text: text.replace("k4.", "K4."),
        lambda text: text.replace("local-pw", "secret-pw"),
        lambda text: "",
    ],
)
def test_there_is_one_spelling(change):
    text = paserk.wrap(KEY, b"a passphrase", salt=SALT, nonce=NONCE, cost=CHEAP)
    with pytest.raises(paserk.PaserkError):
        paserk.parse(change(text))


def test_an_invalid_key_salt_or_nonce_is_refused():
    for key, salt, nonce in ((KEY[1:], SALT, NONCE), (KEY, SALT[1:], NONCE), (KEY, SALT, NONCE[1:])):
        with pytest.raises(ValueError):
            paserk.wrap(key, b"a passphrase", salt=salt, nonce=nonce, cost=CHEAP)
    with pytest.raises(ValueError):
        paserk.unwrap_into(paserk.Wrapped(SALT, CHEAP, NONCE, KEY, KEY), b"", bytearray(31))


def test_a_wrong_passphrase_leaves_the_target_as_it_was():
    target = bytearray(b"x" * 32)
    text = paserk.wrap(KEY, b"a passphrase", salt=SALT, nonce=NONCE, cost=CHEAP)
    with pytest.raises(paserk.NotGenuineError):
        paserk.unwrap_into(paserk.parse(text), b"a passphrasf", target)
    assert target == b"x" * 32


def test_a_system_without_enough_memory_is_reported(monkeypatch):
    class Lib:
        def __getattr__(self, name: str) -> object:
            return (lambda *args: -1) if name == "crypto_pwhash" else getattr(lib, name)

    from agentd import crypto

    lib = crypto.lib
    monkeypatch.setattr(crypto, "lib", Lib())
    with pytest.raises(TooLittleMemoryError):
        paserk.wrap(KEY, b"a passphrase", salt=SALT, nonce=NONCE, cost=CHEAP)


def test_the_cost_is_calibrated_within_the_bounds():
    assert argon2.calibrated().check().passes >= argon2.MIN_PASSES
    assert argon2.memory_for(None) == argon2.memory_for(64 << 30) == 256 * MIB
    assert argon2.memory_for(400 * MIB + 5) == 100 * MIB
    assert argon2.memory_for(0) == argon2.MIN_MEMORY_BYTES
    assert argon2.passes_for(0.125) == 4
    assert argon2.passes_for(9.0) == argon2.MIN_PASSES
    assert argon2.passes_for(0.0) == argon2.MAX_PASSES
    assert Cost(argon2.USUAL_MEMORY_BYTES, argon2.MAX_PASSES).check()
