"""What needs no server: a row of SQLite's, made durable, and a signed token. `in_process_calls.py FOLDER`."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

from asking import Figures, one_by_one, serve

EXPIRY_SECONDS = 8 * 3600
RECORD_BYTES = 260


def insert(folder: Path) -> Callable[[], None]:
    """One insert and its commit, synced: as durable as a session of agentd's."""
    database = sqlite3.connect(folder / "sessions.sqlite", isolation_level=None)
    (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
    assert mode == "wal"
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE session (id BLOB PRIMARY KEY, record BLOB) WITHOUT ROWID")

    def call() -> None:
        database.execute("INSERT INTO session VALUES (?, ?)", (os.urandom(16), os.urandom(RECORD_BYTES)))

    return call


def decode() -> Callable[[int], Figures]:
    """Checking a signature and an expiry: no store, so nothing that could be revoked."""
    try:
        import jwt
    except ImportError:
        return lambda count: {"absent": "PyJWT is not installed"}
    key = os.urandom(32)
    now = int(time.time())
    claims = {
        "iss": os.urandom(16).hex(),
        "sub": "somebody",
        "jti": os.urandom(16).hex(),
        "iat": now,
        "exp": now + EXPIRY_SECONDS,
    }
    token = jwt.encode(claims, key, algorithm="HS256")
    return one_by_one(lambda: jwt.decode(token, key, algorithms=["HS256"]))


def main(folder: Path) -> None:
    serve({"sqlite insert": one_by_one(insert(folder)), "jwt decode": decode()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
