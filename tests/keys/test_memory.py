from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from agentd.keys import SecretMemory, memory
from agentd_client.errors import KeyUnavailableError


def test_a_key_is_32_bytes_and_bytes_gives_a_copy():
    key = SecretMemory().new_key()
    with key as view:
        view[:] = b"k" * 32
    copy = bytes(key)
    key.wipe()
    assert len(key) == 32
    assert copy == b"k" * 32


def test_a_wiped_key_is_zeroed_and_refuses_every_use():
    key = SecretMemory().new_key()
    with key as view:
        view[:] = b"k" * 32
    key.wipe()
    key.wipe()
    assert bytes(view) == bytes(32)
    assert key.is_wiped
    with pytest.raises(KeyUnavailableError):
        bytes(key)
    with pytest.raises(KeyUnavailableError), key:
        pass


def test_no_repr_shows_key_bytes():
    key = SecretMemory().new_key()
    assert repr(key) == "<SecretKey, in memory>"
    key.wipe()
    assert repr(key) == "<SecretKey, wiped>"


def test_a_wiped_slot_is_used_again_and_pages_are_added_when_all_are_taken():
    secret_memory = SecretMemory()
    per_page = mmap.PAGESIZE // 32
    keys = [secret_memory.new_key() for _ in range(per_page + 1)]
    for number, key in enumerate(keys):
        with key as view:
            view[:] = number.to_bytes(32)
    assert [int.from_bytes(bytes(key)) for key in keys] == list(range(per_page + 1))
    keys.pop().wipe()
    assert bytes(secret_memory.new_key()) == bytes(32)


def test_memory_that_could_not_be_locked_is_said_so(monkeypatch):
    monkeypatch.setattr(memory, "lock_memory", lambda buffer: False)
    assert SecretMemory().locked is False


def test_key_memory_is_locked_and_not_dumped():
    secret_memory = SecretMemory()
    key = secret_memory.new_key()
    assert secret_memory.locked
    mappings = [
        line.split()[1:] for line in Path("/proc/self/smaps").read_text().splitlines() if "VmFlags" in line
    ]
    assert any({"lo", "dd"} <= set(flags) for flags in mappings), "locked, and left out of dumps"
    key.wipe()
