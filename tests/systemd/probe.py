"""What a process in the service's sandbox can do: one JSON object. Started in the agent's place.

probe.py STATE RUNTIME HOME SOCKET…
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import socket
import sys
from collections.abc import Callable

CLONE_NEWUSER = 0x10000000
PTRACE_TRACEME = 0
ADDR_NO_RANDOMIZE = 0x0040000


def outcome(attempt: Callable[[], object]) -> str:
    """The name of the error that it ended in, or "done"."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def write_into(folder: str) -> None:
    name = os.path.join(folder, "agentd-probe")
    with open(name, "x"):
        os.unlink(name)


def call(name: str, *arguments: int) -> Callable[[], None]:
    def attempt() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if getattr(libc, name)(*arguments) == -1:
            raise OSError(ctypes.get_errno(), name)

    return attempt


def connect(name: str) -> None:
    """To a socket at a path, or to an abstract one by its name after an @."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect("\0" + name[1:] if name.startswith("@") else name)


def probe(state: str, runtime: str, home: str, *sockets: str) -> dict[str, object]:
    status = dict(
        line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line
    )
    writable_and_executable = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    return {
        "status": {name: status[name] for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")},
        "write": {
            folder: outcome(lambda folder=folder: write_into(folder))
            for folder in ("/", "/usr", "/etc", "/var/tmp", home, f"{home}/.local/state", f"{home}/.config",
                           os.path.dirname(runtime), "/dev/shm", "/tmp", state, runtime)
        },
        "tmp": sorted(os.listdir("/tmp")),
        "socket": {
            name: outcome(lambda family=family: socket.socket(family, socket.SOCK_DGRAM).close())
            for name, family in (("AF_INET", socket.AF_INET), ("AF_INET6", socket.AF_INET6),
                                 ("AF_NETLINK", socket.AF_NETLINK), ("AF_UNIX", socket.AF_UNIX))
        },
        "connect": {name: outcome(lambda name=name: connect(name)) for name in sockets},
        "run": {folder: sorted(os.listdir(folder)) for folder in ("/run", os.path.dirname(runtime))},
        "interfaces": [line.split(":")[0].strip() for line in open("/proc/net/dev").read().splitlines()[2:]],
        "devices": sorted(name for name in os.listdir("/dev") if name.startswith(("sd", "vd", "loop", "kmsg", "mem"))),
        "unshare": outcome(call("unshare", CLONE_NEWUSER)),
        "ptrace": outcome(call("ptrace", PTRACE_TRACEME, 0, 0, 0)),
        "personality": outcome(call("personality", ADDR_NO_RANDOMIZE)),
        "exec_memory": outcome(lambda: mmap.mmap(-1, 4096, prot=writable_and_executable).close()),
        "core_limit": resource.getrlimit(resource.RLIMIT_CORE),
        "umask": os.umask(0o077),
        "environ": dict(os.environ),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(probe(*sys.argv[1:])))
