"""A process with a key ring; each line on standard input makes it take one step.

`python -m tests.keys.holding FOLDER [PASSPHRASE]`. The file `wrapped` in the folder is a session key, wrapped.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from agentd.keys import KeyRing

CONTEXT = b"a session key"


async def hold(folder: Path, passphrase: str | None) -> None:
    ring = await KeyRing.create_key_ring(keys_path=folder, passphrase=passphrase)
    key = ring.unwrap_key((folder.parent / "wrapped").read_bytes(), CONTEXT)
    assert ring.open(ring.seal(b"value", b"path"), b"path") == b"value"
    print("running", ring.memory_locked, ring.memory_secret, flush=True)
    sys.stdin.readline()
    key.wipe()  # by its owner, before the key ring stops
    await ring.stop()
    print("stopped", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    trio.run(hold, Path(sys.argv[1]), *(sys.argv[2:] or [None]))
