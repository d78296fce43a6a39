"""What SIGINT (Ctrl-C) does to a program: it ends as others do, whenever the signal comes.

While it imports and reads its arguments, the signal's default ends it: there is nothing to say and nothing to
undo. During a command's work it raises KeyboardInterrupt, so that what was begun can be taken back; then the
process ends by the signal all the same, which tells a shell that it was interrupted (exit status 130).
A SIGINT that was ignored when the program began, as nohup(1) and background jobs have it, stays ignored.

Python's own handler alone will not do: an exception that it raises inside an import prints a traceback, and
inside a callback of the import system it is dropped.
"""

from __future__ import annotations

# Not `signal`, which imports `enum` first: this is what has to run within a moment of the start.
import _signal  # type: ignore[import-not-found]  # typeshed knows `signal` alone
import os

_seen = False


def end_at_once() -> None:
    """Let SIGINT end the process, until `Raised` is entered. To be called first."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


class Raised:
    """While entered, SIGINT raises KeyboardInterrupt; only in a program that called `end_at_once`."""

    def __enter__(self) -> None:
        """Begin."""
        self._changes = _signal.getsignal(_signal.SIGINT) is _signal.SIG_DFL
        if self._changes:
            _signal.signal(_signal.SIGINT, self._handler)

    def __exit__(self, *_: object) -> None:
        """Let it end the process again."""
        if self._changes:
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

    _handler = staticmethod(_signal.default_int_handler)


class Noted(Raised):
    """`Raised`, and `end_by_signal` knows that the signal came, whatever became of the exception."""

    @staticmethod
    def _handler(number: int, frame: object) -> None:
        note()
        raise KeyboardInterrupt


def note() -> None:
    """It came; `end_by_signal` will end the process."""
    global _seen
    _seen = True


def forget() -> None:
    """It was meant as an answer, and is answered."""
    global _seen
    _seen = False


def end_by_signal() -> None:
    """End this process by SIGINT where that was noted; returns where it was not, or is blocked."""
    if _seen:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        os.kill(os.getpid(), _signal.SIGINT)
