"""What people would use instead: each started here, in a folder of its own, when it is first asked.

One that is not installed, or does not start, is absent, and its rows say so.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.bench.figures import AbsentError
from tests.bench.load import AssuanReplies, RedisReplies, Server, SshReplies, connect, one_client
from tests.bench.worker import Worker, worker

START_SECONDS = 10.0
RECORD_BYTES = 260
EXPIRY_SECONDS = 8 * 3600

REDIS_KEY = "session:bench"
REDIS_VALUE = "x" * RECORD_BYTES
ASSUAN_VERSION = b"GETINFO version\n"
SSH_LIST = struct.pack(">IB", 1, 11)  # SSH_AGENTC_REQUEST_IDENTITIES
_SSH_SIGN = 13  # SSH_AGENTC_SIGN_REQUEST


def redis_command(*words: bytes) -> bytes:
    """As the Redis serialization protocol has it: an array of bulk strings."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


REDIS_GET = redis_command(b"GET", REDIS_KEY.encode())


def redis_set() -> bytes:
    """A new session."""
    return redis_command(b"SET", os.urandom(16), REDIS_VALUE.encode(), b"EX", b"%d" % EXPIRY_SECONDS)


class SshAgent:
    """Holds one Ed25519 key."""

    def __init__(self, server: Server) -> None:
        self.server = server
        with connect(server.path) as connection:
            replies = SshReplies(connection)
            connection.sendall(SSH_LIST)
            while not replies.take():
                pass
        (size,) = struct.unpack_from(">I", replies.last, 5)
        blob = replies.last[9 : 9 + size]
        body = bytes([_SSH_SIGN]) + struct.pack(">I", size) + blob
        body += struct.pack(">I", 32) + bytes(32) + struct.pack(">I", 0)
        self.sign_request = struct.pack(">I", len(body)) + body


class Neighbours:
    """Started at the first use; stopped with the stack. The folder is on the file system of the agent's store."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack

    @cached_property
    def redis(self) -> Server:
        return self._stack.enter_context(_redis(self._fresh_folder()))

    @cached_property
    def redis_py(self) -> Worker:
        return self._stack.enter_context(
            worker(sys.executable, "redis_calls.py", self.redis.path, REDIS_KEY, REDIS_VALUE)
        )

    @cached_property
    def in_process(self) -> Worker:
        return self._stack.enter_context(
            worker(sys.executable, "in_process_calls.py", str(self._fresh_folder()))
        )

    @cached_property
    def gpg_agent(self) -> Server:
        return self._stack.enter_context(_gpg_agent(self._fresh_folder()))

    @cached_property
    def ssh_agent(self) -> SshAgent:
        return SshAgent(self._stack.enter_context(_ssh_agent(self._fresh_folder())))

    def _fresh_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder))


def versions() -> str:
    """Which of them are installed."""
    found = [f"SQLite {sqlite3.sqlite_version}"]
    for name, command in (("Redis", "redis-server"), ("gpg-agent", "gpg-agent"), ("OpenSSH", "ssh")):
        if shutil.which(command):
            told = subprocess.run(
                [command, "-V" if command == "ssh" else "--version"],
                capture_output=True,
                text=True,
                check=False,
            )
            number = re.search(r"\d+\.\d+[\w.]*", told.stdout + told.stderr)
            found.append(f"{name} {number[0] if number else ''}".strip())
    for name in ("redis", "PyJWT"):
        try:
            found.append(f"{'redis-py' if name == 'redis' else name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _require(*commands: str) -> None:
    for command in commands:
        if shutil.which(command) is None:
            raise AbsentError(f"{command} is not installed")


def _wait_for(path: Path, what: str) -> None:
    given_up = time.monotonic() + START_SECONDS
    while not path.exists():
        if time.monotonic() > given_up:
            raise AbsentError(f"{what} did not start")
        time.sleep(0.01)


def _run(*command: str, **environ: str) -> str:
    """What a command says; one that fails has its neighbour absent."""
    done = subprocess.run(
        command,
        env=os.environ | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise AbsentError(f"{command[0]} failed: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def _redis(folder: Path) -> Iterator[Server]:
    """As durable as agentd: every write is synced before it is answered."""
    _require("redis-server")
    path = folder / "redis.sock"
    settings = {
        "port": "0", "unixsocket": str(path), "unixsocketperm": "600", "dir": str(folder),
        "save": "", "appendonly": "yes", "appendfsync": "always",
    }  # fmt: skip
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        _wait_for(path, "redis-server")
        server = Server(process.pid, str(path), RedisReplies)
        one_client(
            server.path, [redis_command(b"SET", REDIS_KEY.encode(), REDIS_VALUE.encode())], server.replies
        )
        yield server
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _gpg_agent(folder: Path) -> Iterator[Server]:
    _require("gpg-agent", "gpg-connect-agent", "gpgconf")
    place = {"GNUPGHOME": str(folder)}
    # Not `_run`: the daemon would hold its pipes open.
    subprocess.run(
        ["gpg-agent", "--daemon"],
        env=os.environ | place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    try:
        path = Path(_run("gpgconf", "--list-dirs", "agent-socket", **place).strip())
        _wait_for(path, "gpg-agent")
        told = re.search(
            r"^D (\d+)$", _run("gpg-connect-agent", "GETINFO pid", "/bye", **place), re.MULTILINE
        )
        if told is None:
            raise AbsentError("gpg-agent did not start")
        yield Server(int(told[1]), str(path), AssuanReplies)
    finally:
        subprocess.run(["gpgconf", "--kill", "gpg-agent"], env=os.environ | place, check=False)


@contextmanager
def _ssh_agent(folder: Path) -> Iterator[Server]:
    _require("ssh-agent", "ssh-keygen", "ssh-add")
    path, key = folder / "ssh.sock", str(folder / "id_ed25519")
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        _wait_for(path, "ssh-agent")
        _run("ssh-add", "-q", key, SSH_AUTH_SOCK=str(path))
        yield Server(process.pid, str(path), SshReplies)
    finally:
        process.terminate()
        process.wait()
