"""What systemd does when it starts a service with a socket: descriptor 3, and the variables that say so."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.daemon import Home

_HAND_OVER = 'exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec "$@"'


@contextmanager
def listening(path: Path | str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(128)
        yield listener


def handed_over(passed: object, *python: str, environ: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start Python with `passed` (anything with a descriptor) as the one socket that systemd passes."""
    return subprocess.Popen(
        ["sh", "-c", _HAND_OVER, "sh", sys.executable, *python],
        stdin=passed,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    )


def served(home: Home, listener: socket.socket, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    """`agentd serve` as systemd starts it."""
    command = ("-m", "agentd", *arguments) if arguments else ("-m", "agentd", "serve")
    return handed_over(listener, *command, environ=home.environ | environ)
