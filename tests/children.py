"""Processes that tests start and end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is killed, or until its standard input is closed."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()
