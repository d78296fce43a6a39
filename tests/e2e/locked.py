"""A real agent whose key file has a passphrase, and the keys that it must forget when it is locked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from agentd.crypto import derive_into
from agentd.keys import Cost, KeyRing, change_passphrase
from agentd.keys.argon2 import MIN_MEMORY_BYTES, MIN_PASSES
from agentd.sessions import SessionManager
from agentd.store import DB
from tests.e2e.daemon import Daemon, Home, serving

PASSPHRASE = "correct horse battery staple"
CHEAP = Cost(MIN_MEMORY_BYTES, MIN_PASSES)


def protect(home: Home) -> dict[str, bytes]:
    """Make keys and store, lock the key file with the passphrase; every key, by its name."""
    return trio.run(_protect, home.state)


async def _protect(state: Path) -> dict[str, bytes]:
    folder = state / "keys"
    async with (
        await KeyRing.create_key_ring(keys_path=folder) as key_ring,
        await DB.create_db(db_path=state / "store", key_ring=key_ring) as db,
        await SessionManager.create_session_manager(db=db, key_ring=key_ring) as manager,
    ):
        root = (folder / "root.key").read_bytes()
        keys = {"root": root, "session": bytes(await manager.setup_key())}
    for purpose in ("store", "session"):
        derived = bytearray(32)
        derive_into(root, b"agentd key: " + purpose.encode(), derived)
        keys[f"{purpose} derived"] = bytes(derived)
    await change_passphrase(folder, None, PASSPHRASE, cost=CHEAP)
    return keys


def passphrase_file(home: Home, passphrase: str = PASSPHRASE) -> str:
    path = home.path / "passphrase"
    path.touch(mode=0o600)
    path.write_text(passphrase + "\n")
    return str(path)


@contextmanager
def unlocked(home: Home, *args: str) -> Iterator[Daemon]:
    """An agent that is unlocked over its socket, so that no passphrase is anywhere around it."""
    with serving(home, *args) as daemon:
        with daemon.client() as agent:
            agent.unlock(PASSPHRASE)
        yield daemon


def descriptor_with(text: str) -> int:
    """The end of a pipe in which the text waits."""
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    return reading
