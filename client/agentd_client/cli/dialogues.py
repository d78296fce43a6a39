"""Programs that ask a person, such as pinentry, until another thread says that no answer is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from ..paths import without_tokens
from . import terminal


class DialoguesEndedError(Exception):
    """It is no longer asked."""


class Dialogues:
    """The programs that ask about one thing, one after the other. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._ended = False

    @contextmanager
    def started(
        self, command: Sequence[str], *, stdin: int | None = None, environ: dict[str, str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start a program, which inherits no token; waits at the end until it has exited.

        Raises:
            DialoguesEndedError: it is no longer asked.
            OSError: the program cannot be started.
        """
        with self._lock:
            if self._ended:
                raise DialoguesEndedError
            # One that asks on the terminal has to be in its foreground. Elsewhere a group of its own contains
            # the children of a wrapper script too.
            group = None if terminal.is_there() else 0
            child = subprocess.Popen(  # noqa: S603 - the user named it
                command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                bufsize=0,
                env=without_tokens() | (environ or {}),
                process_group=group,
            )
            self._child = child
        try:
            with child:
                yield child
        finally:
            with self._lock:
                self._child = None

    def end(self) -> None:
        """End the program that asks, and start no other."""
        with self._lock:
            self._ended = True
            child = self._child
            # Under the lock, and only while it runs: afterwards the number may be another process's.
            if child is not None and child.poll() is None:
                with suppress(ProcessLookupError):
                    if os.getpgid(child.pid) == child.pid:
                        os.killpg(child.pid, signal.SIGKILL)
                    else:
                        child.kill()
