"""The clients in examples/, made ready to run, and an agent that answers nonsense."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import msgpack
import pytest

from agentd_client.protocol.limits import MAX_MESSAGE_BYTES

EXAMPLES = Path(__file__).parents[2] / "examples"
BUILD_SECONDS = 300
RUN_SECONDS = 60
NO_ANSWER = 69

GO_PACKAGES = Path("/usr/share/gocode")
"""Where Debian's Go packages are."""


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def built(*command: str | Path, **environ: str) -> None:
    subprocess.run(command, env=os.environ | environ, check=True, timeout=BUILD_SECONDS)


def loads(*command: str) -> None:
    """Skip if the command, which loads the language's libraries, fails."""
    needs(command[0])
    if subprocess.run(command, capture_output=True, check=False, timeout=BUILD_SECONDS).returncode:
        pytest.skip(f"{command[0]} lacks a library: {command[-1]}")


def node(folder: Path) -> list[str]:
    needs("node", "npm")
    installing = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), "@msgpack/msgpack@3"]
    if subprocess.run(installing, capture_output=True, check=False, timeout=BUILD_SECONDS).returncode:
        pytest.skip("npm cannot install @msgpack/msgpack")
    shutil.copy(EXAMPLES / "agentd.mjs", folder)
    return ["node", str(folder / "agentd.mjs"), "verify"]


def go(folder: Path) -> list[str]:
    needs("go")
    if not (GO_PACKAGES / "src/github.com/vmihailenco/msgpack/v5").is_dir():
        pytest.skip("golang-github-vmihailenco-msgpack.v5-dev is not installed")
    program = folder / "agentd"
    built(
        *("go", "build", "-o", program, EXAMPLES / "agentd.go"),
        GO111MODULE="off",
        GOPATH=str(GO_PACKAGES),
        GOCACHE=str(folder / "cache"),
    )
    return [str(program), "verify"]


def c(folder: Path) -> list[str]:
    needs("cc")
    if not Path("/usr/include/msgpack.h").exists():
        pytest.skip("libmsgpack-dev is not installed")
    program = folder / "verify"
    warnings = ["-std=c17", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    built("cc", *warnings, "-o", program, EXAMPLES / "verify.c", "-lmsgpackc")
    return [str(program)]


def ruby(_: Path) -> list[str]:
    loads("ruby", "-e", "require 'msgpack'")
    return ["ruby", "-w", str(EXAMPLES / "verify.rb")]


def php(_: Path) -> list[str]:
    loads("php", "-r", "exit(extension_loaded('msgpack') && extension_loaded('posix') ? 0 : 1);")
    return ["php", str(EXAMPLES / "verify.php")]


def lua(_: Path) -> list[str]:
    loads("lua5.3", "-e", "require 'mpack' require 'posix'")
    return ["lua5.3", str(EXAMPLES / "verify.lua")]


def shell(_: Path) -> list[str]:
    needs("socat")
    return ["sh", str(EXAMPLES / "verify.sh")]


CLIENTS = {
    "node": ("agentd.mjs", node),
    "go": ("agentd.go", go),
    "ruby": ("verify.rb", ruby),
    "c": ("verify.c", c),
    "php": ("verify.php", php),
    "lua": ("verify.lua", lua),
    "shell": ("verify.sh", shell),
}
CHECK_THE_FOLDER = {"node", "php", "lua", "shell"}
"""The others ask the kernel who is listening."""


class Example:
    """One client, ready to run."""

    def __init__(self, language: str, command: list[str]) -> None:
        self.language = language
        self._command = command

    def start(self, *arguments: str, **environ: str | None) -> subprocess.Popen[str]:
        """Start it; a variable of None is unset."""
        variables = {name: value for name, value in (os.environ | environ).items() if value is not None}
        return subprocess.Popen(
            [*self._command, *arguments],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[int(number)] if (number := environ.get("AGENTD_TOKEN_FD")) else [],
            text=True,
        )

    def verify(self, *arguments: str, **environ: str | None) -> tuple[str, int]:
        """What it prints, and its exit code. It complains exactly if there is no answer."""
        started = self.start(*arguments, **environ)
        printed, complaint = started.communicate(timeout=RUN_SECONDS)
        assert bool(complaint) == (started.returncode == NO_ANSWER), complaint
        assert "v4.local." not in complaint
        return printed.strip(), started.returncode

    def within(self, *wrapper: str) -> Example:
        """The same, run by another program."""
        return Example(self.language, [*wrapper, *self._command])

    def otherwise(self, command: str) -> Example:
        """The same with another command than `verify`."""
        assert self._command[-1] == "verify"
        return Example(self.language, [*self._command[:-1], command])


class FakeAgent:
    """Answers every request with the same bytes, or if they are None not at all."""

    def __init__(self, path: Path, uid: int | None = None) -> None:
        self.received: list[bytes] = []
        self.answer: bytes | None = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        if uid is not None:
            os.seteuid(uid)  # SO_PEERCRED shows who called listen(2)
        try:
            self._listener.listen()
        finally:
            if uid is not None:
                os.seteuid(0)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.ExitStack() as unanswered, contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with contextlib.ExitStack() as answered, contextlib.suppress(ConnectionError):
                    answered.enter_context(connection)
                    self._receive(connection)
                    if self.answer is None:
                        unanswered.push(answered.pop_all())
                    else:
                        connection.sendall(self.answer)

    def _receive(self, connection: socket.socket) -> None:
        """Receive a whole message, which the shell sends in many pieces, or what comes before the end."""
        unpacker = msgpack.Unpacker()
        while received := connection.recv(MAX_MESSAGE_BYTES):
            self.received.append(received)
            unpacker.feed(received)
            for _ in unpacker:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
