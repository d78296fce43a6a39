"""Calls through redis-py, over a Unix socket. `redis_calls.py SOCKET KEY VALUE`."""

from __future__ import annotations

import os
import sys

from asking import answer, in_threads, one_by_one, questions, serve

THREADS = 16
EXPIRY_SECONDS = 8 * 3600


def main(path: str, key: str, value: str) -> None:
    try:
        import redis
    except ImportError:
        for _ in questions():
            answer({"absent": "redis-py is not installed"})
        return
    with redis.Redis(unix_socket_path=path) as client:

        def set_expiring() -> None:
            client.set(os.urandom(16), value, ex=EXPIRY_SECONDS)

        serve(
            {
                "get": one_by_one(lambda: client.get(key)),
                "set": one_by_one(set_expiring),
                "set in threads": in_threads(set_expiring, THREADS),
            }
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
