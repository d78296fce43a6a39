"""A real file system of a few megabytes, in a mount namespace of its own: nothing of it outlives its process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

MIB = 1024 * 1024
KINDS = ("ext4", "tmpfs")
TIMEOUT_SECONDS = 500.0  # a story takes twenty seconds; on a busy machine many times that
CANNOT_MOUNT = 77  # as automake has it: a test that could not be run


class CannotMountError(Exception):
    """This machine lets nobody mount such a file system here."""


class SmallDisk:
    """A mounted file system, and a file that fills what is free of it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._filler = folder / "filler"

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bfree * found.f_frsize

    def fill(self) -> None:
        """Take all that is free, down to the last block, as root can."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (MIB, 4096, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue
            os.fsync(file.fileno())

    def make_room(self) -> None:
        self._filler.unlink()
        os.sync()  # ext4 frees blocks with its journal


@contextmanager
def small_disk(kind: str, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount a new file system; only within a mount namespace of one's own."""
    with tempfile.TemporaryDirectory(prefix="agentd-disk-") as folder:
        disk = Path(folder) / "disk"
        disk.mkdir()
        with ExitStack() as mounted:
            if kind == "ext4":
                # In memory: thousands of commits are synced here, and how fast this machine's disk does that
                # is not what is tested.
                memory = Path(folder) / "memory"
                memory.mkdir()
                mounted.enter_context(_tmpfs(memory, 2 * size_bytes))
                mounted.enter_context(_ext4(disk, memory / "image", size_bytes))
            else:
                mounted.enter_context(_tmpfs(disk, size_bytes))
            yield SmallDisk(disk)


@contextmanager
def _tmpfs(folder: Path, size_bytes: int) -> Iterator[None]:
    with _mounted(folder, "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs"):
        yield


@contextmanager
def _ext4(folder: Path, image: Path, size_bytes: int) -> Iterator[None]:
    with image.open("wb") as file:
        file.truncate(size_bytes)
    _run("mkfs.ext4", "-q", "-F", str(image))
    with _mounted(folder, "-o", "loop", str(image)):
        yield


@contextmanager
def _mounted(folder: Path, *what: str) -> Iterator[None]:
    _run("mount", *what, str(folder))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(folder))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMountError(f"{' '.join(command)}: {done.stderr.strip()}")


def in_a_namespace_of_its_own(module: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a module where it may mount what it likes; nobody else sees it, and no process outlives it."""
    processes = ("--pid", "--fork", "--kill-child", "--mount-proc")
    # Without measuring coverage there: thousands of calls would take several times as long.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS_")}
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", *processes, sys.executable, "-m", module, *args],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        env=environ,
        check=False,
    )


def why_not() -> str | None:
    """Why this machine cannot mount anything for a test; None where it may be able to."""
    if os.geteuid():
        return "mounting a small file system needs root"
    missing = [tool for tool in ("unshare", "mount", "mkfs.ext4") if shutil.which(tool) is None]
    return f"{missing[0]} is not installed" if missing else None
