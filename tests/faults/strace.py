"""Let one system call of a running process fail, by way of strace(1)."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

SECONDS = 30


@dataclass(frozen=True)
class Case:
    """The Nth call of a kind, counted thread by thread, and what becomes of it."""

    call: str
    fault: str
    when: int

    @property
    def option(self) -> str:
        how = "signal=KILL" if self.fault == "KILL" else f"error={self.fault}"
        return f"inject={self.call}:{how}:when={self.when}"


class Strace:
    """strace attached to a process for as long as that lives; then `injected` tells whether the call came."""

    def __init__(self, pid: int, case: Case, folder: Path) -> None:
        self._log = folder / "strace"
        output, calls, fault = ["-o", str(self._log)], ["-e", f"trace={case.call}"], ["-e", case.option]
        self._process = subprocess.Popen(
            ["strace", "-f", *output, *calls, *fault, "-p", str(pid)], stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        if "attached" not in line:
            self._process.communicate(timeout=SECONDS)
            raise OSError(f"strace cannot attach: {line.strip()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.terminate()  # it lets go of what it traces
        self._process.communicate(timeout=SECONDS)

    @property
    def injected(self) -> bool:
        text = self._log.read_text(errors="replace")
        return "(INJECTED)" in text or "killed by SIGKILL" in text


def why_not() -> str | None:
    """Why nothing can be injected here; None where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    if os.geteuid():
        return "the agent lets nobody but root trace it"
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return f"strace may not trace here: {tried.stderr.strip()}" if tried.returncode else None
