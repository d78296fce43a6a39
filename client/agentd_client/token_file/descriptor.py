"""A token handed over by the environment: mostly as an inherited descriptor of memory that nobody can change.

A token in such memory is on no disk and not in the environment, where every process of the user could read
it. It is gone when the last process that holds the descriptor ends.
"""

from __future__ import annotations

import fcntl
import os
import stat

from ..errors import TokenFileError
from ..paths import TOKEN_FD_VARIABLE, TOKEN_VARIABLE, token_variable
from ..protocol.methods import TOKEN_PREFIX, stripped_token, token_text
from . import MAX_FILE_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LOWEST_DESCRIPTOR = 10
"""Lower numbers are the standard streams and those that shell scripts redirect by hand."""

_NAME = "agentd-token"
_LINK = f"/memfd:{_NAME}"
"""How /proc/PID/fd shows the memory, followed by " (deleted)" (memfd_create(2))."""

_STANDARD_STREAMS = 3
_MOST_DESCRIPTORS = 65_536
"""How many numbers are tried if there is no /proc to list them."""

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed_descriptor(token: str) -> int:
    """A new descriptor that holds the token, inherited across execve(2); the caller closes it.

    Raises:
        InvalidTokenError: it cannot be a token.
        OSError: there is no memory or no descriptor left.
    """
    content = stripped_token(token).encode("ascii") + b"\n"
    memory = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(memory, 0o600)
        os.pwrite(memory, content, 0)  # leaves the offset, which all who inherit it share, at 0
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        return fcntl.fcntl(memory, fcntl.F_DUPFD, LOWEST_DESCRIPTOR)
    finally:
        os.close(memory)


def withhold_tokens() -> list[int]:
    """Keep the tokens in open descriptors from the program that this process becomes.

    Returns the standard streams that held one.

    These are all descriptors of memory as `sealed_descriptor` makes it, whatever their number and whoever
    made them, and of files that hold one token and nothing else. execve(2) will close them. Standard
    streams, which a program expects to be open, are redirected to /dev/null.
    """
    streams = []
    for descriptor in _open_descriptors():
        if not _holds_token(descriptor):
            continue
        if descriptor >= _STANDARD_STREAMS:
            os.set_inheritable(descriptor, False)
            continue
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
        streams.append(descriptor)
    return streams


def environment_token(environ: Mapping[str, str] = os.environ) -> str | None:
    """The token handed over in ``AGENTD_TOKEN`` or by the descriptor in ``AGENTD_TOKEN_FD``, if any.

    Raises:
        TokenFileError: the descriptor cannot be read or holds no token.
    """
    variable = token_variable(environ)
    if variable is None:
        return None
    given = environ[variable].strip()
    return given if variable == TOKEN_VARIABLE else read_token(given)


def read_token(number: str) -> str:
    """The token in a descriptor, whose number is the value of ``AGENTD_TOKEN_FD``.

    Any number of processes may read it: their shared offset is not used.

    Raises:
        TokenFileError: it is not a number, not open, not a small file, or holds no token.
    """
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise TokenFileError(f"{TOKEN_FD_VARIABLE} is not the number of a file descriptor; unset it")
    descriptor = int(number)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _error(number, "is not a file or memory that can be read more than once")
        if found.st_size > MAX_FILE_BYTES:
            raise _error(number, f"holds more than {MAX_FILE_BYTES} bytes")
        content = os.pread(descriptor, MAX_FILE_BYTES, 0)
    except OSError as error:
        raise _error(
            number,
            f"cannot be read ({error.strerror}); a program in between may have closed it, as Node does, and "
            "Python's subprocess without pass_fds",
        ) from error
    text = token_text(content.decode("ascii", "replace").strip())
    if text is None:
        raise _error(number, "does not hold one token")
    return text


def _open_descriptors() -> list[int]:
    try:
        return sorted(map(int, os.listdir("/proc/self/fd")))
    except OSError:
        return list(range(min(os.sysconf("SC_OPEN_MAX"), _MOST_DESCRIPTORS)))


def _holds_token(descriptor: int) -> bool:
    # By its name first: memory that was opened write-only or with O_PATH cannot be read here, but could be
    # reopened through /proc.
    try:
        if os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)") == _LINK:
            return True
    except OSError:
        pass  # no /proc, or the descriptor that listed the folder and is closed by now
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_FILE_BYTES:
            return False
        text = os.pread(descriptor, MAX_FILE_BYTES, 0).decode("ascii", "replace").strip()
    except OSError:
        return False
    return text.startswith(TOKEN_PREFIX) and token_text(text) is not None


def _error(number: str, reason: str) -> TokenFileError:
    return TokenFileError(
        f"{TOKEN_FD_VARIABLE} is {number}, and that descriptor {reason}; unset it, or hand the token over in "
        "another way (`agentctl exec --file`)"
    )
