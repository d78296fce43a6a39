"""The passphrase of an agent that starts unattended: from a systemd credential, a file descriptor or a file.

It is read into a buffer that the caller wipes, and is never an object that could not be wiped. One newline at
its end is taken off, because editors and `echo` put one there. Refusals name the source, never the content.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from agentd_client.errors import ConfigError, PassphraseError

from ..crypto import wipe
from ..keys.passphrase import MAX_BYTES

CREDENTIAL = "agentd.passphrase"
"""The name of the credential: ``LoadCredential=agentd.passphrase:PATH`` in the unit (systemd.exec(5))."""

_LAST_STANDARD_DESCRIPTOR = 2
# O_NONBLOCK: opening a FIFO would wait for a writer for ever. O_NOFOLLOW: the name must be the file.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def passphrase_from_credential(environ: Mapping[str, str] = os.environ) -> bytearray | None:
    """The passphrase that the service manager hands over; None where it hands over none.

    Owner and mode are the manager's business: depending on its version and the file system the file
    is root's, with an entry for the service's user (acl(5)).

    Raises:
        ConfigError: the credential cannot be read or is not a regular file.
        PassphraseError: it is empty, too long, or holds a NUL byte.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    path = Path(folder) / CREDENTIAL
    source = f"credential {path}"
    try:
        descriptor = os.open(path, _READ_FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed(source, error) from None
    try:
        _check_regular(source, os.fstat(descriptor))
        return _read(source, descriptor)
    finally:
        os.close(descriptor)


def passphrase_from_file(path: str | os.PathLike[str]) -> bytearray:
    """The passphrase in a file that only its owner, the agent's user, can open.

    Raises:
        ConfigError: it cannot be read, is no regular file, another's, or open to others; says the remedy.
        PassphraseError: it is empty, too long, or holds a NUL byte.
    """
    source = f"passphrase file {os.fspath(path)}"
    try:
        descriptor = os.open(path, _READ_FLAGS)
    except OSError as error:
        if os.path.islink(path):
            raise _refused(source, "it is a symbolic link; name the file that it points to") from None
        raise _failed(source, error) from None
    try:
        found = os.fstat(descriptor)
        _check_regular(source, found)
        if found.st_uid != os.geteuid():
            raise _refused(
                source, f"it belongs to uid {found.st_uid}; give it to the user who runs the agent"
            )
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise _refused(
                source,
                f"others have rights to it (mode {mode:04o}); run `chmod 600 {os.fspath(path)}`, and change "
                "the passphrase if someone may have read it",
            )
        return _read(source, descriptor)
    finally:
        os.close(descriptor)


def passphrase_from_descriptor(descriptor: int) -> bytearray:
    """The passphrase that can be read from a descriptor up to its end; waits for that.

    The descriptor is closed, so that nobody can read from it again; the standard ones, 0 to 2, stay open.

    Raises:
        ConfigError: it is not open, or cannot be read from.
        PassphraseError: what came is empty, too long, or holds a NUL byte.
    """
    source = f"file descriptor {descriptor}"
    if descriptor < 0:
        raise _refused(source, "there is none of that number")
    try:
        os.fstat(descriptor)
    except OSError as error:
        raise _failed(source, error) from None
    try:
        return _read(source, descriptor)
    finally:
        if descriptor > _LAST_STANDARD_DESCRIPTOR:
            os.close(descriptor)


def _check_regular(source: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _refused(source, "it is not a regular file")


def _read(source: str, descriptor: int) -> bytearray:
    # Of one size from the beginning: a bytearray that grows or shrinks leaves copies in freed memory.
    room = bytearray(MAX_BYTES + 2)
    with memoryview(room) as view:
        try:
            size = _fill(descriptor, view)
            if size and view[size - 1] == ord("\n"):
                size -= 1
            if size == 0:
                raise PassphraseError(f"{source} holds no passphrase; write one into it")
            if size > MAX_BYTES:
                raise PassphraseError(f"{source} holds more than {MAX_BYTES} bytes; that is no passphrase")
            if 0 in view[:size]:
                raise PassphraseError(f"{source} holds a NUL byte, and a passphrase none; write it as UTF-8")
            passphrase = bytearray(size)
            # Assigned to directly, a bytearray would make a copy of its own first.
            with memoryview(passphrase) as target:
                target[:] = view[:size]
        except OSError as error:
            raise _failed(source, error) from None
        finally:
            wipe(view)
    return passphrase


def _fill(descriptor: int, view: memoryview) -> int:
    filled = 0
    while filled < len(view):
        count = os.readv(descriptor, [view[filled:]])
        if count == 0:
            break
        filled += count
    return filled


def _refused(source: str, reason: str) -> ConfigError:
    return ConfigError(f"{source} is refused: {reason}")


def _failed(source: str, error: OSError) -> ConfigError:
    return ConfigError(f"{source} cannot be read: {error.strerror}")
