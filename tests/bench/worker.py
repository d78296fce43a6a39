"""A Python process that measures calls made in it, when it is told to: the other end is in timed/."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.bench.figures import AbsentError, Sample
from tests.bench.load import MICROSECONDS

TIMED = Path(__file__).parent / "timed"


class Worker:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, operation: str, count: int) -> dict[str, float]:
        """The figures of so many calls, in seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([operation, count]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args} ended in the middle of {operation}")
        found = json.loads(answer)
        if "absent" in found:
            raise AbsentError(found["absent"])
        return found

    def microseconds(self, operation: str, count: int) -> Sample:
        """The median of a call, and the processor time of this process for each."""
        found = self.ask(operation, count)
        return Sample(found["value"] * MICROSECONDS, found["processor"] * MICROSECONDS)

    def rate(self, operation: str, count: int) -> Sample:
        """Calls a second, and the processor time of this process for each."""
        found = self.ask(operation, count)
        return Sample(found["value"], found["processor"] * MICROSECONDS)


@contextmanager
def worker(
    python: str, script: str, *arguments: str, environ: Mapping[str, str] | None = None
) -> Iterator[Worker]:
    """One that runs `script` of timed/ in an interpreter of anyone's choice."""
    with subprocess.Popen(
        [python, str(TIMED / script), *arguments],
        env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        yield Worker(process)
        assert process.stdin is not None
        process.stdin.close()
