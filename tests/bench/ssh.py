"""Just enough of ssh-agent's protocol (draft-ietf-sshm-ssh-agent) to time two of its requests."""

from __future__ import annotations

import re
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REQUEST_IDENTITIES, SIGN_REQUEST = 11, 13
CALLS = 1000


@contextmanager
def agent(folder: Path) -> Iterator[tuple[str, bytes]]:
    """An ssh-agent with one Ed25519 key: its socket, and the key's public blob."""
    path, key = str(folder / "ssh.sock"), str(folder / "id_ed25519")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    started = subprocess.run(["ssh-agent", "-a", path], capture_output=True, text=True, check=True).stdout
    pid = int(re.search(r"SSH_AGENT_PID=(\d+)", started)[1])
    try:
        subprocess.run(["ssh-add", "-q", key], env={"SSH_AUTH_SOCK": path}, capture_output=True, check=True)
        with connect(path) as connection:
            answer = ask(connection, bytes([REQUEST_IDENTITIES]))
        (size,) = struct.unpack_from(">I", answer, 5)
        yield path, answer[9 : 9 + size]
    finally:
        subprocess.run(["kill", str(pid)], check=True)


def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    return connection


def ask(connection: socket.socket, body: bytes) -> bytes:
    connection.sendall(struct.pack(">I", len(body)) + body)
    answer = b""
    while len(answer) < 4 or len(answer) < 4 + struct.unpack_from(">I", answer)[0]:
        answer += connection.recv(1 << 16)
    return answer[4:]


def p50(path: str, body: bytes) -> float:
    seconds = []
    with connect(path) as connection:
        for _ in range(CALLS):
            begun = time.perf_counter()
            ask(connection, body)
            seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def list_p50(path: str) -> float:
    return p50(path, bytes([REQUEST_IDENTITIES]))


def sign_p50(path: str, blob: bytes) -> float:
    body = bytes([SIGN_REQUEST]) + struct.pack(">I", len(blob)) + blob
    return p50(path, body + struct.pack(">I", 32) + bytes(32) + struct.pack(">I", 0))
