"""A passphrase that is handed over in a file or by a file descriptor, to the client or to the agent.

It is read into a buffer that the caller wipes, and is never an object that could not be wiped. One newline at
its end is taken off here; which line ends are no part of a passphrase is said in `passphrase_rules`. Refusals
name the source, never the content.
"""

from __future__ import annotations

import os
import stat

from .errors import PassphraseError
from .passphrase_rules import MARK, bounds
from .private import folders_fault, private_fault
from .protocol.limits import MAX_PASSPHRASE_BYTES

# O_NONBLOCK: opening a FIFO would wait for a writer for ever. O_NOFOLLOW: the name must be the file.
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


_NO_PART_BYTES = len(MARK) + len(b"\r\n")


class PassphraseSourceError(PassphraseError):
    """No passphrase can be had from where it was to come from; whether it is right was not asked."""


def passphrase_of_file(path: str | os.PathLike[str]) -> bytearray:
    """The passphrase in a regular file that nobody but this user can open.

    Raises:
        PassphraseSourceError: it cannot be read, is no such file, or holds no passphrase; says the remedy.
    """
    source = f"passphrase file {os.fspath(path)}"
    try:
        descriptor = os.open(path, READ_FLAGS)
    except OSError as error:
        if os.path.islink(path):
            raise _refused(source, "it is a symbolic link; name the file that it points to") from None
        raise failed(source if may_be_shown(path) else "the passphrase file", error) from None
    try:
        found = os.fstat(descriptor)
        check_regular(source, found)
        fault = private_fault(path, found)
        if fault is not None:
            remedy = f"{fault.remedy}, and change the passphrase if someone may have read it"
            raise _refused(source, f"{fault.reason}; {remedy}")
        fault = folders_fault(os.path.dirname(os.path.abspath(path)))
        if fault is not None:
            raise PassphraseSourceError(f"the folder of {source}: {fault}")
        return read_passphrase(source, descriptor)
    finally:
        os.close(descriptor)


def passphrase_of_descriptor(number: int) -> bytearray:
    """The passphrase that comes from an open descriptor, which is read to its end; waits for that.

    Raises:
        PassphraseSourceError: it is not open, is a terminal, or what came is no passphrase.
    """
    source = f"file descriptor {number}"
    if number >= 0 and os.isatty(number):  # false where it is not open: reading says so
        raise _refused(source, "it is a terminal, which would show what is typed; leave the option out")
    return read_passphrase(source, number)


def read_passphrase(source: str, descriptor: int) -> bytearray:
    """What can be read up to the end, without a newline at its end; `source` is its name in refusals."""
    # Of one size from the beginning: a bytearray that grows or shrinks leaves copies in freed memory.
    room = bytearray(MAX_PASSPHRASE_BYTES + _NO_PART_BYTES + 1)
    try:
        with memoryview(room) as view:
            size, start = _fill(descriptor, view), 0
            is_whole = size < len(view)
            if size and view[size - 1] == ord("\n"):
                size -= 1
            if is_whole and size > MAX_PASSPHRASE_BYTES:  # with what is no part of it
                start, size = bounds(view[:size])
            if size == start:
                raise PassphraseSourceError(f"{source} holds no passphrase; write one into it")
            if not is_whole or size - start > MAX_PASSPHRASE_BYTES:
                raise PassphraseSourceError(
                    f"{source} holds more than {MAX_PASSPHRASE_BYTES} bytes; that is no passphrase"
                )
            if 0 in view[start:size]:
                raise PassphraseSourceError(
                    f"{source} holds a NUL byte, and a passphrase none; write it as UTF-8"
                )
            return copy(view[start:size])
    except OSError as error:
        raise failed(source, error) from None
    finally:
        wipe(room)


def may_be_shown(path: str | os.PathLike[str]) -> bool:
    """Whether what should be a path is one, by its folder: else it may be a passphrase typed in its place."""
    return os.path.isdir(os.path.dirname(path))


def check_regular(source: str, found: os.stat_result) -> None:
    """Raise `PassphraseSourceError` where this is no regular file."""
    if not stat.S_ISREG(found.st_mode):
        raise _refused(source, "it is not a regular file")


def failed(source: str, error: OSError) -> PassphraseSourceError:
    """What the system said, as a refusal of that source."""
    return PassphraseSourceError(f"{source} cannot be read: {error.strerror}")


def copy(view: memoryview) -> bytearray:
    """A bytearray of that size and content, and no other copy."""
    made = bytearray(len(view))
    # Assigned to directly, a bytearray would make a copy of its own first.
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
