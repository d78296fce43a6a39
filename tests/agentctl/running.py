"""Ways to run `agentctl`: in this process, as a process of its own, and on a terminal (pty(7))."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from agentd_client.cli.run import run
from tests.agentctl.fake_agent import NOW

COMMAND = [sys.executable, "-m", "agentd_client.cli"]


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def in_process(*args: str, stdin: bytes = b"", terminal: bool = False) -> Ended:
    """Run at `NOW`; `terminal` says what standard output claims to be."""
    out, err = Terminal() if terminal else io.StringIO(), io.StringIO()
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(args, now=lambda: NOW)
    finally:
        sys.stdin = before
    return Ended(code, out.getvalue(), err.getvalue())


def process(*args: str, stdin: str | None = None, **options: object) -> subprocess.CompletedProcess[str]:
    given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(
        [*COMMAND, *args], **given, capture_output=True, text=True, timeout=60, check=False, **options
    )


class OnTerminal(NamedTuple):
    code: int
    shown: str


def on_terminal(
    *args: str, asked: bytes = b"", typed: bytes = b"", interrupted: bool = False, **environ: str
) -> OnTerminal:
    """Run with a terminal as all three streams; once `asked` is shown, type the answer or send SIGINT."""
    ours, theirs = pty.openpty()
    if interrupted:
        _without_echo(theirs)
    with (
        subprocess.Popen(
            [*COMMAND, *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=(without_coverage() if interrupted else os.environ) | environ,
            start_new_session=True,
        ) as child,
        open(ours, "r+b", buffering=0) as terminal,
    ):
        os.close(theirs)
        shown, is_due = b"", bool(asked)
        # Linux: reading from a terminal that nobody holds any more is EIO.
        with contextlib.suppress(OSError):
            while data := terminal.read(4096):
                shown += data
                if is_due and asked in shown:
                    is_due = False
                    if interrupted:
                        # The signal may come just before the read, which then would wait for good: the line
                        # that is typed after it ends the read, and Python sees the signal first.
                        child.send_signal(signal.SIGINT)
                    terminal.write(b"\n" if interrupted else typed)
        code = child.wait(60)
    return OnTerminal(code, shown.decode().replace("\r\n", "\n"))


def in_conversation(
    *args: str,
    answers: Sequence[tuple[bytes, bytes | Callable[[], bytes]]],
    early: bytes = b"",
    **environ: str,
) -> OnTerminal:
    """Run with a controlling terminal (tty(4)), and type each answer once its question is shown.

    `early` is typed before it begins. An answer may be a function that returns what to type, and does
    something meanwhile.
    """
    ours, theirs = pty.openpty()
    os.write(ours, early)
    waiting = list(answers)
    with (
        subprocess.Popen(
            ["setsid", "--ctty", *COMMAND, *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | environ,
        ) as child,
        open(ours, "r+b", buffering=0) as terminal,
    ):
        os.close(theirs)
        shown, looked_at = b"", 0
        with contextlib.suppress(OSError):
            while data := terminal.read(4096):
                shown += data
                while waiting and (found := shown.find(waiting[0][0], looked_at)) >= 0:
                    asked, answer = waiting.pop(0)
                    looked_at = found + len(asked)
                    terminal.write(answer() if callable(answer) else answer)
        code = child.wait(60)
    assert not waiting, f"never asked: {waiting[0][0]!r}, but shown: {shown!r}"
    return OnTerminal(code, shown.decode().replace("\r\n", "\n"))


def without_coverage(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of what will be interrupted: an interruption while coverage holds its lock would leave
    it locked for ever."""
    return {name: value for name, value in environ.items() if not name.startswith("COVERAGE_")}


def _without_echo(terminal: int) -> None:
    settings = termios.tcgetattr(terminal)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, settings)
