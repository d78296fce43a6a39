"""A passphrase handed over in a file or by a file descriptor, to the client or to the agent.

It is read into a buffer that the caller wipes, and never becomes an object that cannot be wiped. One newline
at its end is taken off here; `protocol.passphrases` says what else is not part of a passphrase. Errors name
the source, never the content.
"""

from __future__ import annotations

import os
import stat

from .errors import PassphraseError
from .private import READ_FLAGS, folders_fault, private_fault
from .protocol.limits import MAX_PASSPHRASE_BYTES
from .protocol.passphrases import BYTE_ORDER_MARK, EMPTY, HAS_NUL, LINE_ENDING, TOO_LONG, bounds

_MOST_BYTES = len(BYTE_ORDER_MARK) + MAX_PASSPHRASE_BYTES + len(LINE_ENDING)


class PassphraseSourceError(PassphraseError):
    """No passphrase could be read from its source, so none was tried."""


def passphrase_of_file(path: str | os.PathLike[str]) -> bytearray:
    """The passphrase in a regular file that only this user can open.

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
    """The passphrase from an open descriptor, which is read to its end; blocks until then.

    Raises:
        PassphraseSourceError: it is not open, is a terminal, or holds no passphrase.
    """
    source = f"file descriptor {number}"
    if number >= 0 and os.isatty(number):  # false where it is not open: reading says so
        raise _refused(source, "it is a terminal, which would show what is typed; leave the option out")
    return read_passphrase(source, number)


def read_passphrase(source: str, descriptor: int) -> bytearray:
    """Read to the end, without a newline at its end; `source` is its name in errors."""
    # Its size never changes: a bytearray that grows or shrinks leaves copies in freed memory.
    room = bytearray(_MOST_BYTES + 1)
    try:
        with memoryview(room) as view:
            size, start = _fill(descriptor, view), 0
            is_whole = size < len(view)
            if size and view[size - 1] == ord("\n"):
                size -= 1
            if is_whole and size > MAX_PASSPHRASE_BYTES:  # perhaps with a byte order mark
                start, size = bounds(view[:size])
            if size == start:
                raise PassphraseSourceError(f"{source}: {EMPTY}")
            if not is_whole or size - start > MAX_PASSPHRASE_BYTES:
                raise PassphraseSourceError(f"{source}: {TOO_LONG}")
            if 0 in view[start:size]:
                raise PassphraseSourceError(f"{source}: {HAS_NUL}; write it as UTF-8")
            return copy(view[start:size])
    except OSError as error:
        raise failed(source, error) from None
    finally:
        wipe(room)


def may_be_shown(path: str | os.PathLike[str]) -> bool:
    """Whether an error may show this path: if its folder is missing, a passphrase may stand in its place."""
    return os.path.isdir(os.path.dirname(path))


def check_regular(source: str, found: os.stat_result) -> None:
    """Raise `PassphraseSourceError` unless this is a regular file."""
    if not stat.S_ISREG(found.st_mode):
        raise _refused(source, "it is not a regular file")


def failed(source: str, error: OSError) -> PassphraseSourceError:
    """The system's error as one that names the source."""
    return PassphraseSourceError(f"{source} cannot be read: {error.strerror}")


def copy(view: memoryview) -> bytearray:
    """A bytearray of the same content, without another copy on the way."""
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
