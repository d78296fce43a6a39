"""A passphrase out of a file or a file descriptor, by the rules that the agent has for its own.

One newline at the end is taken off, because editors and `echo` put one there. Refusals name the source, never
the content.
"""

from __future__ import annotations

import os
import stat
from typing import ClassVar

from ...errors import PassphraseError
from ...protocol.limits import MAX_PASSPHRASE_BYTES

# O_NONBLOCK: opening a FIFO would wait for a writer for ever. O_NOFOLLOW: the name must be the file.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class PassphraseSourceError(PassphraseError):
    """No passphrase can be had from where it was to come from; the agent was not asked."""


class FromFile:
    """A regular file that nobody but this user can open."""

    tries: ClassVar[int] = 1
    is_typed: ClassVar[bool] = False

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, prompt: str, problem: str = "") -> bytearray:
        """What it holds; raises PassphraseSourceError, with the remedy."""
        source = f"passphrase file {self._path}"
        try:
            descriptor = os.open(self._path, _READ_FLAGS)
        except OSError as error:
            if os.path.islink(self._path):
                raise _refused(source, "it is a symbolic link; name the file that it points to") from None
            raise _failed(source, error) from None
        try:
            self._check(source, os.fstat(descriptor))
            return read_passphrase(source, descriptor)
        finally:
            os.close(descriptor)

    def _check(self, source: str, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise _refused(source, "it is not a regular file")
        if found.st_uid != os.geteuid():
            raise _refused(source, f"it belongs to uid {found.st_uid}; use one of your own")
        if found.st_mode & 0o077:
            raise _refused(
                source,
                f"others have rights to it (mode {stat.S_IMODE(found.st_mode):04o}); run "
                f"`chmod 600 {self._path}`, and change the passphrase if someone may have read it",
            )


class FromDescriptor:
    """An open descriptor, which is read to its end."""

    tries: ClassVar[int] = 1
    is_typed: ClassVar[bool] = False

    def __init__(self, number: int) -> None:
        self._number = number

    def ask(self, prompt: str, problem: str = "") -> bytearray:
        """What comes from it; waits for its end. Raises PassphraseSourceError."""
        source = f"file descriptor {self._number}"
        if os.isatty(self._number):  # false where it is not open: reading says so
            raise _refused(source, "it is a terminal, which would show what is typed; leave the option out")
        return read_passphrase(source, self._number)


def read_passphrase(source: str, descriptor: int) -> bytearray:
    """What can be read up to the end, without a newline at its end; `source` is its name in refusals."""
    # Of one size from the beginning: a bytearray that grows or shrinks leaves copies in freed memory.
    room = bytearray(MAX_PASSPHRASE_BYTES + 2)
    try:
        with memoryview(room) as view:
            size = _fill(descriptor, view)
            if size and view[size - 1] == ord("\n"):
                size -= 1
            if size == 0:
                raise PassphraseSourceError(f"{source} holds no passphrase")
            if size > MAX_PASSPHRASE_BYTES:
                raise PassphraseSourceError(
                    f"{source} holds more than {MAX_PASSPHRASE_BYTES} bytes; that is no passphrase"
                )
            return copy(view[:size])
    except OSError as error:
        raise _failed(source, error) from None
    finally:
        wipe(room)


def copy(view: memoryview) -> bytearray:
    """A bytearray of that size and content, and no other copy."""
    made = bytearray(len(view))
    with memoryview(made) as target:
        target[:] = view
    return made


def wipe(secret: bytearray) -> None:
    """Overwrite it with zeros."""
    secret[:] = bytes(len(secret))


def _fill(descriptor: int, view: memoryview) -> int:
    filled = 0
    while filled < len(view):
        count = os.readv(descriptor, [view[filled:]])
        if count == 0:
            break
        filled += count
    return filled


def _refused(source: str, reason: str) -> PassphraseSourceError:
    return PassphraseSourceError(f"{source} is refused: {reason}")


def _failed(source: str, error: OSError) -> PassphraseSourceError:
    return PassphraseSourceError(f"{source} cannot be read: {error.strerror}")
