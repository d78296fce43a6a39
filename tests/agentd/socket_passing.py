"""What systemd does when it starts a service with sockets: descriptors from 3 on, and what says so."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.daemon import Home

_PASS_SOCKETS = """
import os, sys
count = int(sys.argv[1])
for number, descriptor in enumerate(map(int, sys.argv[2 : 2 + count])):
    os.dup2(descriptor, 3 + number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count)}
os.execv(sys.executable, [sys.executable, *sys.argv[2 + count :]])
"""
_BEYOND = 10
"""Where the descriptors stand until then, out of the way of those that they become."""


@contextmanager
def listening(path: Path | str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(128)
        yield listener


def started_with_sockets(
    passed: Sequence[Any], *python: str, names: str | None = None, environ: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start Python with some of `passed` (anything with a descriptor) as the sockets that systemd passes."""
    waiting = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, _BEYOND) for each in passed]
    command = [sys.executable, "-S", "-c", _PASS_SOCKETS, str(len(passed)), *map(str, waiting)]
    try:
        return subprocess.Popen(
            [*command, *python],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=waiting,
            env=(os.environ if environ is None else environ) | ({"LISTEN_FDNAMES": names} if names else {}),
        )
    finally:
        for descriptor in waiting:
            os.close(descriptor)


def served(
    home: Home, listener: Any, *arguments: str, others: Mapping[str, Any] | None = None, **environ: str
) -> subprocess.Popen[str]:
    """`agentd serve` as systemd starts it, with the owner's socket and perhaps, by name, others."""
    command = ("-m", "agentd", *arguments) if arguments else ("-m", "agentd", "serve")
    passed, names = [listener], None
    if others:
        passed, names = [listener, *others.values()], ":".join(("agentd.socket", *others))
    return started_with_sockets(passed, *command, names=names, environ=home.environ | environ)
