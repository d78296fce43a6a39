"""Servers that run as another user, which only root can start."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - as all that programs use: see `served_as`
import os
import sys
import threading
import wsgiref.simple_server  # noqa: F401
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import agentd_client.ext.wsgi  # noqa: F401
from tests.other_user import as_user

BUILDER = 61002
"""A user that this machine does not know."""


@contextmanager
def served_as(uid: int, program: str, *, groups: Sequence[int] = ()) -> Iterator[str]:
    """Run a program, which prints `serving URL`, as another user; the URL.

    The program runs in a fork, and can only import what this process has imported: see `as_user`.
    """
    said, say = os.pipe()
    ended, end = os.pipe()

    def run() -> None:
        with open(say, "w", buffering=1) as sys.stdout:
            try:
                exec(compile(program, "program", "exec"), {"__name__": "__main__"})
            except BaseException as error:
                print(repr(error))

    def act() -> None:
        threading.Thread(target=run, daemon=True).start()
        os.read(ended, 1)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(as_user, act, uid, groups=groups)
        try:
            line = os.read(said, 1000).decode()
            assert line.startswith("serving "), line
            yield line.split()[1]
        finally:
            os.write(end, b"\n")
            running.result()
            for descriptor in (said, say, ended, end):
                os.close(descriptor)
