"""Simulate a kernel without secret memory: a system call filter refuses memfd_secret(2).

`python -m tests.keys.ordinary_memory ARGUMENT…` runs Python with these arguments under that filter, which stays for
whatever it starts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shlex
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

MEMFD_SECRET = 447
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = (
    0x20,
    0x15,
    0x06,
)  # bpf(4): BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM


def _kernel_has_it() -> bool:
    """Ask the kernel itself, so that an agent that fails to use it fails its tests."""
    descriptor = ctypes.CDLL(None).syscall(MEMFD_SECRET, 0)
    if descriptor < 0:
        return False
    os.close(descriptor)
    return True


HAS_SECRET_MEMORY = _kernel_has_it()
KINDS = ("secret", "ordinary")


def python(kind: str) -> list[str]:
    """The command that starts Python with this kind of memory."""
    return [sys.executable] if kind == "secret" else [sys.executable, "-m", "tests.keys.ordinary_memory"]


def python_file(kind: str, folder: Path) -> str:
    """The same as an executable file."""
    file = folder / f"python-{kind}"
    project = Path(__file__).parents[2]
    file.write_text(
        f'#!/bin/sh\nexport PYTHONPATH={shlex.quote(str(project))}\nexec {shlex.join(python(kind))} "$@"\n'
    )
    file.chmod(0o700)
    return str(file)


def refuse_secret_memory() -> None:
    program = b"".join(
        struct.pack("HBBI", code, if_true, if_false, value)
        for code, if_true, if_false, value in (
            (_LOAD, 0, 0, 0),  # the system call number
            (_JUMP_IF_EQUAL, 0, 1, MEMFD_SECRET),
            (_RETURN, 0, 0, _REFUSE),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    filters = ctypes.create_string_buffer(program)
    described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(filters))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert (
        libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.create_string_buffer(described), 0, 0) == 0
    )


def main(arguments: Sequence[str]) -> None:
    refuse_secret_memory()
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
