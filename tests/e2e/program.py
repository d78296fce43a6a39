"""A program that calls the agent as it is told: `python -m tests.e2e.program SOCKET [UID]`.

It has children that are told through it, and so on, and as many connections as are wanted.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from tests.e2e.daemon import START_SECONDS


class Answer(NamedTuple):
    """What the agent answered: a result, or the code of an error."""

    code: str | None
    result: Any


class Program:
    """Such a program, a sibling of every other one that the same process starts.

    generation: 0 is the program, 1 its child, and so on.
    """

    def __init__(self, path: Path | str, uid: int | None = None) -> None:
        """Of this user, or of another one, which takes root."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.program", str(path), *([] if uid is None else [str(uid)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def call(self, name: str, *, generation: int = 0, connection: int = 0, **params: Any) -> Answer:
        self.ask(name, generation=generation, connection=connection, **params)
        return self.answer()

    def ask(self, name: str, *, generation: int = 0, connection: int = 0, **params: Any) -> None:
        """Have it call the agent; `answer` waits for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([generation, connection, name, params]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Answer:
        assert self.process.stdout is not None
        return Answer(*json.loads(self.process.stdout.readline()))

    def end(self) -> None:
        """Kill it; its children end when they notice."""
        self.process.kill()
        self.process.communicate()


class _Caller:
    """One process of those."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._msgids = itertools.count(1)
        self._connections: dict[int, tuple[socket.socket, msgpack.Unpacker]] = {}
        self._child: tuple[Any, Any] | None = None

    def run(self, told: Iterable[str], say: Any) -> None:
        for line in told:
            generation, connection, name, params = json.loads(line)
            if generation:
                to, back = self._child = self._child or self._fork()
                to.write(json.dumps([generation - 1, connection, name, params]) + "\n")
                to.flush()
                answer = back.readline()
            else:
                answer = json.dumps(self._call(connection, name, params)) + "\n"
            say.write(answer)
            say.flush()

    def _call(self, number: int, name: str, params: dict[str, Any]) -> Answer:
        if number not in self._connections:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(START_SECONDS)
            self._connections[number] = sock, msgpack.Unpacker()
            with suppress(OSError):  # then sending fails too
                sock.connect(self._path)
        sock, unpacker = self._connections[number]
        msgid = next(self._msgids)
        try:
            sock.sendall(msgpack.packb([0, msgid, name, [params]]))
            while True:
                for message in unpacker:
                    if message[:2] == [1, msgid]:
                        error, result = message[2:]
                        return Answer(None if error is None else error[1].partition(":")[0], result)
                data = sock.recv(65536)
                if not data:
                    raise ConnectionResetError
                unpacker.feed(data)
        except OSError as error:
            self._connections.pop(number)[0].close()
            return Answer(type(error).__name__, None)

    def _fork(self) -> tuple[Any, Any]:
        down, up = os.pipe(), os.pipe()
        if os.fork() == 0:
            os.close(down[1])
            os.close(up[0])
            with open(down[0]) as told, open(up[1], "w") as say:
                _Caller(self._path).run(told, say)  # with connections of its own
            os._exit(0)
        os.close(down[0])
        os.close(up[1])
        return open(down[1], "w"), open(up[0])


if __name__ == "__main__":
    if sys.argv[2:]:  # after the imports, because another user cannot be expected to reach them
        os.setgroups([])
        os.setresuid(*3 * [int(sys.argv[2])])
    _Caller(sys.argv[1]).run(sys.stdin, sys.stdout)
