"""One process that wants every connection, and the others that still get theirs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgpack
import pytest

from agentd_client.protocol.limits import MAX_CONNECTIONS
from tests.e2e.daemon import serving

NOTIFICATION = msgpack.packb([2, "anything", [{}]])
HELLO = msgpack.packb([0, 1, "hello", [{}]])

HOG = """
import os, socket, sys
path, count, first, rest = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3]), bytes.fromhex(sys.argv[4])
held = []
for _ in range(count):
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].connect(path)
    held[-1].sendall(first)
print(flush=True)
for line in sys.stdin:
    for connection in held:
        try:
            connection.sendall(rest)
        except OSError:
            pass
    print(flush=True)
"""


class Hog:
    """Another process with as many connections as there are."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        assert process.stdout.readline()

    def go_on(self) -> None:
        """Send the rest on each of them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline()


@contextmanager
def hogging(home, first: bytes, rest: bytes) -> Iterator[Hog]:
    command = [sys.executable, "-I", "-S", "-c", HOG, str(home.socket), str(MAX_CONNECTIONS)]
    with subprocess.Popen(
        [*command, first.hex(), rest.hex()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Hog(process)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (NOTIFICATION + NOTIFICATION[:3], NOTIFICATION[3:] + NOTIFICATION[:3]),
        (HELLO[:-1], HELLO[-1:] + HELLO[:-1]),
        (HELLO, HELLO),
    ],
    ids=["notifications that are never finished", "requests that are never finished", "requests"],
)
def test_a_process_with_every_connection_keeps_nobody_out(home, first, rest):
    with serving(home) as daemon, hogging(home, first, rest) as hog:
        for _ in range(5):
            hog.go_on()
            with daemon.client() as agent:
                token = agent.create_token().token
                assert agent.verify_token(token)
        with daemon.client() as agent:
            hog.go_on()
            status = agent.get_status()
    assert status.counters.connections_open > MAX_CONNECTIONS - 8, (
        "the others were not let in for want of a crowd"
    )
    assert status.counters.peers_refused == 0
    assert daemon.process.returncode == 0
