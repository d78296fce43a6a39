"""No copy of a key outlives its key ring: another process searches the whole memory of its owner."""

from __future__ import annotations

import subprocess

import pytest
from nacl._sodium import ffi, lib

from agentd.crypto import derive_into, hash_into
from agentd.keys import KeyRing, change_passphrase, paserk
from agentd.keys.argon2 import MIN_MEMORY_BYTES, MIN_PASSES, Cost
from agentd.keys.paserk import argon2id_into
from tests.keys.holding import CONTEXT
from tests.keys.ordinary_memory import HAS_SECRET_MEMORY, KINDS, python
from tests.keys.scanning import Found, scan

PASSPHRASE = "correct horse battery staple"
CHEAP = Cost(MIN_MEMORY_BYTES, MIN_PASSES)


def made(maker, *arguments: object, **more: object) -> bytes:
    target = bytearray(32)
    maker(*arguments, **more, target=target)
    return bytes(target)


def wrapping_keys(text: str) -> dict[str, bytes]:
    """The keys derived from the passphrase: with the key file, as good as the root key itself."""
    wrapped = paserk.parse(text)
    cost = {"passes": CHEAP.passes, "memory_bytes": CHEAP.memory_bytes}
    first = made(argon2id_into, PASSPHRASE.encode(), wrapped.salt, **cost)
    encryption, authentication = (made(hash_into, bytes([number]) + first) for number in (0xFF, 0xFE))
    stream = bytearray(lib.crypto_secretstream_xchacha20poly1305_statebytes())  # begins with HChaCha20's key
    state = ffi.from_buffer("crypto_secretstream_xchacha20poly1305_state *", stream)
    lib.crypto_secretstream_xchacha20poly1305_init_pull(state, wrapped.nonce, encryption)
    subkey = bytes(stream[:32])
    return {"argon2id": first, "encryption": encryption, "authentication": authentication, "subkey": subkey}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
async def test_keys_are_in_locked_memory_only_and_nowhere_after_the_stop(tmp_path, passphrase, kind):
    if kind == "secret" and not HAS_SECRET_MEMORY:
        pytest.skip("this kernel has no secret memory")
    folder = tmp_path / "keys"
    ring = await KeyRing.create_key_ring(keys_path=folder)
    root = (folder / "root.key").read_bytes()
    session_key = ring.new_key()
    (tmp_path / "wrapped").write_bytes(ring.wrap_key(session_key, CONTEXT))
    keys = {
        "root": root,
        "store": made(derive_into, root, b"agentd key: store"),
        "session wrapping": made(derive_into, root, b"agentd key: session"),
        "session": bytes(session_key),
    }
    if passphrase:
        await change_passphrase(folder, None, passphrase, cost=CHEAP)
        keys |= wrapping_keys((folder / "root.key").read_text().strip())
    # Secret memory cannot be read.
    while_running = {"store", "session wrapping", "session"} if kind == "ordinary" else set()

    command = [*python(kind), "-m", "tests.keys.holding", str(folder), *([passphrase] if passphrase else [])]
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs here
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == f"running True {kind == 'secret'}\n"
            try:
                running = scan(process.pid, keys)
            except PermissionError:
                pytest.skip("this system lets nobody read a child's memory")
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "stopped\n"
            stopped = scan(process.pid, keys)
        finally:
            process.kill()
    assert running == {name: Found(1, 1) if name in while_running else Found(0, 0) for name in keys}
    assert stopped == dict.fromkeys(keys, Found(0, 0))
