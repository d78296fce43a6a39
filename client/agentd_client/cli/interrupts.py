"""SIGINT (Ctrl-C): it ends the program whenever it comes, as it ends other programs.

During imports and the parsing of arguments the signal's default action ends the process: there is nothing to
undo. While a command works it raises KeyboardInterrupt, so that the command can clean up; then the process
still ends by the signal, which tells a shell that it was interrupted (exit status 130). A SIGINT that was
ignored when the program started, as with nohup(1) and background jobs, stays ignored.

Python's own handler is not enough: an exception that it raises during an import prints a traceback, and
within a callback of the import system it is lost.
"""

from __future__ import annotations

# Not `signal`, which imports `enum`: this has to run as early as possible.
import _signal  # type: ignore[import-not-found]  # typeshed only knows `signal`
import os

_seen = False


def end_at_once() -> None:
    """Let SIGINT end the process until `Raised` is entered. Call this first."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


class Raised:
    """A context in which SIGINT raises KeyboardInterrupt, if the program has called `end_at_once`."""

    def __enter__(self) -> None:
        """Begin."""
        self._changes = _signal.getsignal(_signal.SIGINT) is _signal.SIG_DFL
        if self._changes:
            _signal.signal(_signal.SIGINT, self._handler)

    def __exit__(self, *_: object) -> None:
        """Let SIGINT end the process again."""
        if self._changes:
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

    _handler = staticmethod(_signal.default_int_handler)


class Noted(Raised):
    """As `Raised`; also notes the signal for `end_by_signal`, whatever happens to the exception."""

    @staticmethod
    def _handler(number: int, frame: object) -> None:
        note()
        raise KeyboardInterrupt


def note() -> None:
    """Note that SIGINT came, so that `end_by_signal` ends the process."""
    global _seen
    _seen = True


def forget() -> None:
    """Forget a SIGINT that the command has handled."""
    global _seen
    _seen = False


def end_by_signal() -> None:
    """End this process by SIGINT if one was noted; returns otherwise, or if the signal is blocked."""
    if _seen:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        os.kill(os.getpid(), _signal.SIGINT)
