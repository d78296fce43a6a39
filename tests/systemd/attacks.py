"""What a program of the same user can learn of an agent's memory, and of a process that does not guard itself.

Run with the installed agent's Python and a folder to work in; prints what was refused and what was not.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PTRACE_TRACEME, PTRACE_ATTACH, PTRACE_DETACH = 0, 16, 17
SYS_PIDFD_GETFD = 438
LIBC = ctypes.CDLL(None, use_errno=True)


def ptrace(pid: int) -> None:
    if LIBC.ptrace(PTRACE_ATTACH, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(pid, 0)
    LIBC.ptrace(PTRACE_DETACH, pid, 0, 0)


def pidfd_getfd(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    if LIBC.syscall(SYS_PIDFD_GETFD, pidfd, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")


ATTACKS = {
    "mem": lambda pid: Path(f"/proc/{pid}/mem").open("rb", buffering=0).close(),
    "environ": lambda pid: Path(f"/proc/{pid}/environ").read_bytes(),
    "maps": lambda pid: Path(f"/proc/{pid}/maps").read_bytes(),
    "fd": lambda pid: os.listdir(f"/proc/{pid}/fd"),
    "ptrace": ptrace,
    "pidfd_getfd": pidfd_getfd,
}


def attack(pid: int) -> dict[str, str]:
    found = {}
    for name, way in ATTACKS.items():
        try:
            way(pid)
        except PermissionError:
            found[name] = "refused"
        else:
            found[name] = "open"
    return found


class Early:
    """What a program has that opened the agent's memory before the first instruction of its interpreter."""

    def __init__(self, pid: int) -> None:
        os.waitpid(pid, 0)
        self._memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        self._maps = open(f"/proc/{pid}/maps")
        LIBC.ptrace(PTRACE_DETACH, pid, 0, 0)

    def found(self, secret: bytes) -> dict[str, int]:
        """How many bytes it can read, and how often the secret is among them."""
        read, copies = 0, 0
        for line in self._maps:
            addresses, mode, *_ = line.split()
            if not mode.startswith("r") or "[v" in line:  # the kernel's own pages, [vsyscall] for one
                continue
            start, end = (int(part, 16) for part in addresses.split("-"))
            try:
                content = os.pread(self._memory, end - start, start)
            except OSError:
                continue
            read, copies = read + len(content), copies + content.count(secret)
        return {"bytes": read, "copies": copies}


def store_key(state: Path) -> bytes:
    """The key that seals the store, made as the agent makes it: anybody of the same user can."""
    from agentd.crypto import derive_into

    derived = bytearray(32)
    derive_into((state / "keys" / "root.key").read_bytes(), b"agentd key: store", derived)
    return bytes(derived)


def has_secret_memory(socket: Path) -> bool:
    from agentd_client import Client

    with Client.connect(str(socket), timeout=60) as agent:
        return bool(agent.get_status().memory_secret)


def main(folder: Path) -> None:
    os.chdir(folder)
    socket, state = folder / "agentd" / "agent.sock", folder / "state"
    command = [sys.executable, "-I", "-m", "agentd", "serve", "--socket", str(socket), "--state", str(state)]
    agent = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, preexec_fn=lambda: LIBC.ptrace(PTRACE_TRACEME, 0, 0, 0)
    )
    early = Early(agent.pid)
    deadline = time.monotonic() + 60
    while not socket.is_socket():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    is_secret = has_secret_memory(socket)
    ordinary = subprocess.Popen([sys.executable, "-I", "-c", "input()"], stdin=subprocess.PIPE)
    while b"-c" not in Path(f"/proc/{ordinary.pid}/cmdline").read_bytes():
        pass
    results = {"agent": attack(agent.pid), "ordinary": attack(ordinary.pid)}
    results["early"] = {"secret": is_secret, **early.found(store_key(state))}
    ordinary.kill()
    os.kill(agent.pid, signal.SIGSEGV)
    _, status = os.waitpid(agent.pid, 0)
    results["died_of"] = os.WTERMSIG(status)
    results["dumped_core"] = os.WCOREDUMP(status)
    results["left"] = sorted(path.name for path in folder.iterdir())
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
