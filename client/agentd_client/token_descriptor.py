"""A token handed over by file descriptor: memory that is inherited, and that nobody can change.

It is not in the environment, where every process of the user could read it, and not on a disk. It goes when
the last process that holds the descriptor ends.
"""

from __future__ import annotations

import fcntl
import os
import stat

from .errors import TokenFileError
from .paths import TOKEN_FD_VARIABLE
from .token_file import MAX_FILE_BYTES
from .token_text import stripped_token, token_text

LOWEST_DESCRIPTOR = 10
"""Below it stand the standard streams and the numbers that shell scripts redirect by hand."""

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed_descriptor(token: str) -> int:
    """A new descriptor that holds the token, to be inherited over execve(2); the caller closes it.

    Raises:
        InvalidTokenError: that is no token.
        OSError: the system gives no memory or no descriptor.
    """
    content = stripped_token(token).encode("ascii") + b"\n"
    memory = os.memfd_create("agentd-token", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(memory, 0o600)
        os.pwrite(memory, content, 0)  # the offset, which all who inherit it share, stays at the beginning
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        return fcntl.fcntl(memory, fcntl.F_DUPFD, LOWEST_DESCRIPTOR)
    finally:
        os.close(memory)


def read_token(number: str) -> str:
    """The token that the descriptor of that number holds, by the value of ``AGENTD_TOKEN_FD``.

    Any number of processes may read it: the offset, which they share, is not used.

    Raises:
        TokenFileError: no descriptor, not open here, not a small file, or it holds no token.
    """
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise TokenFileError(f"{TOKEN_FD_VARIABLE} is not the number of a file descriptor; unset it")
    descriptor = int(number)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _refusal(number, "is not a file or memory that can be read more than once")
        if found.st_size > MAX_FILE_BYTES:
            raise _refusal(number, f"holds more than {MAX_FILE_BYTES} bytes")
        content = os.pread(descriptor, MAX_FILE_BYTES, 0)
    except OSError as error:
        raise _refusal(
            number,
            f"cannot be read ({error.strerror}); a program in between may have closed it, as Python's "
            "subprocess does without pass_fds",
        ) from error
    text = token_text(content.decode("ascii", "replace").strip())
    if text is None:
        raise _refusal(number, "does not hold one token")
    return text


def _refusal(number: str, reason: str) -> TokenFileError:
    return TokenFileError(
        f"{TOKEN_FD_VARIABLE} is {number}, and that descriptor {reason}; unset it, or hand the token over in "
        "another way (`agentctl exec --file`)"
    )
