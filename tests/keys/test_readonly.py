"""Read-only keys: the same keys, and nothing changed by reading them."""

from __future__ import annotations

import os

import pytest

from agentd.crypto import SealError
from agentd.keys import Cost, KeyRing, key_file_form, read_only_keys
from agentd.keys.argon2 import MIN_MEMORY_BYTES, MIN_PASSES
from agentd_client.errors import AgentLockedError, KeyFileError, KeyUnavailableError, PassphraseError

CHEAP = Cost(MIN_MEMORY_BYTES, MIN_PASSES)


@pytest.mark.parametrize("passphrase", [None, "open up"])
async def test_it_opens_what_the_key_ring_sealed(tmp_path, passphrase):
    async with await KeyRing.create_key_ring(
        keys_path=tmp_path / "keys", passphrase=passphrase, cost=CHEAP
    ) as key_ring:
        sealed = key_ring.seal(b"a value", b"its place")
        agent_id = key_ring.agent_id
    with read_only_keys(tmp_path / "keys", passphrase) as keys:
        assert keys.agent_id == agent_id
        assert keys.open(sealed, b"its place") == b"a value"
        with pytest.raises(SealError):
            keys.open(sealed, b"another place")
        assert not hasattr(keys, "seal")
    with pytest.raises(KeyUnavailableError):
        keys.open(sealed, b"its place")


async def test_the_form_shows_passphrase_and_leftovers(tmp_path):
    keys_path = tmp_path / "keys"
    async with await KeyRing.create_key_ring(keys_path=keys_path):
        pass
    assert key_file_form(keys_path) == (None, [])
    async with await KeyRing.create_key_ring(
        keys_path=keys_path, passphrase="open up", cost=CHEAP, fresh=True
    ):
        pass
    leftover = keys_path / f".root.key.{'0' * 16}"
    leftover.write_bytes(bytes(32))
    (keys_path / ".root.key.backup").write_bytes(b"")
    assert key_file_form(keys_path) == (CHEAP, [leftover.name])
    assert leftover.exists()


def test_reading_a_missing_key_file_creates_nothing(tmp_path):
    assert key_file_form(tmp_path / "keys") is None
    with pytest.raises(KeyFileError, match="does not exist"), read_only_keys(tmp_path / "keys"):
        pass
    assert not (tmp_path / "keys").exists()


async def test_errors_are_the_same_as_the_agents(tmp_path):
    keys_path = tmp_path / "keys"
    async with await KeyRing.create_key_ring(keys_path=keys_path, passphrase="open up", cost=CHEAP):
        pass
    with pytest.raises(AgentLockedError), read_only_keys(keys_path):
        pass
    with pytest.raises(PassphraseError), read_only_keys(keys_path, "another"):
        pass
    os.truncate(keys_path / "root.key", 5)
    with pytest.raises(KeyFileError, match="5 bytes"):
        key_file_form(keys_path)
