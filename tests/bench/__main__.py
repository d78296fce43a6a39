"""`python -m tests.bench`: a table, bench.json and bench.svg. It measures and never fails for a figure."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench import report, rows, stores
from tests.bench.figures import Row
from tests.bench.load import Server
from tests.bench.neighbours import Neighbours, versions
from tests.bench.subject import Subject, as_in_a_plain_shell
from tests.bench.worker import worker
from tests.e2e.daemon import scratch_home
from tests.signals import as_in_a_foreground_job

PARTS = ("verifying", "creating", "clients", "files", "starting", "scaling", "controlling")


@contextmanager
def echoing(folder: Path) -> Iterator[Server]:
    path = str(folder / "echo.sock")
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.echo", path])
    try:
        while not os.path.exists(path):
            if process.poll() is not None:
                raise RuntimeError("the echo did not start")
        yield Server(process.pid, path)
    finally:
        process.terminate()
        process.wait()


def every_row(subject: Subject, rounds: int, many: int, parts: list[str]) -> Iterator[Row]:
    with ExitStack() as stack:
        home = stack.enter_context(scratch_home())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        echo = stack.enter_context(echoing(folder))
        others = Neighbours(folder, stack)
        agent = stack.enter_context(subject.serving(home))
        yield rows.idle_memory(agent)
        if "verifying" in parts:
            yield from rows.verifying(agent, echo, others, rounds)
        if "creating" in parts:
            with worker(subject.python, "manager_calls.py", str(folder)) as in_process:
                yield from rows.creating(home, agent, echo, in_process, others, rounds)
        if "clients" in parts:
            with worker(subject.python, "client_calls.py", agent.path, environ=home.environ) as client:
                yield from rows.through_clients(client, others, rounds)
        if "files" in parts:
            with worker(subject.python, "token_file_calls.py", str(home.path), environ=home.environ) as files:
                yield from rows.token_file(files, rounds)
    if "starting" in parts:
        with scratch_home() as home:
            yield from rows.starting(subject, home, rounds)
    if "scaling" in parts:
        yield from stores.scaling(subject, 1_000, many, rounds)
    if "controlling" in parts:
        yield from stores.controlling(subject, 100, min(many, 100_000), rounds)


def processor_name() -> str:
    told = Path("/proc/cpuinfo").read_text()
    return next((line.split(": ")[1] for line in told.splitlines() if line.startswith("model name")), "")


def machine(subject: Subject, is_compiled: bool) -> dict[str, str]:
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "agentd": subject.commit or "of no checkout",
        "machine": f"{os.cpu_count()} processors, {processor_name()}, {platform.system()} {platform.release()}, "
        f"{stores.file_system()}",
        "python": f"{platform.python_version()}, "
        + (
            "bytecode compiled" if is_compiled else "some bytecode could not be written: starts may be slower"
        ),
        "beside": versions(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sessions", type=int, default=1_000_000, help="in the larger store")
    parser.add_argument("--only", action="append", choices=PARTS, help="some parts (may be repeated)")
    parser.add_argument(
        "--agent", type=Path, default=Path(sys.executable).parent, metavar="BIN",
        help="the bin folder of the virtual environment whose agentd is measured; this one by default",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("build/bench"), metavar="FOLDER")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the marks in FILE")
    parser.add_argument(
        "--before", type=Path, metavar="JSON", help="an earlier bench.json, to hold beside this"
    )
    wanted = parser.parse_args()
    earlier = report.rows_of(json.loads(wanted.before.read_text())) if wanted.before else None
    if wanted.write:
        report.around_marks(wanted.write)  # it should not take a whole run to find that there are none

    as_in_a_plain_shell()
    subject = Subject(wanted.agent)
    about = machine(subject, subject.compile())
    told = "".join(f"{name}: {value}\n" for name, value in about.items())
    print(f"{told}medians of {wanted.rounds} rounds (lowest to highest) [processor time of each]", flush=True)
    found: list[Row] = []
    for row in every_row(subject, wanted.rounds, wanted.sessions, wanted.only or list(PARTS)):
        found.append(row)
        print(report.line(row), flush=True)

    wanted.output.mkdir(parents=True, exist_ok=True)
    document = report.document(about, wanted.rounds, found)
    heading = "".join(f"{name}: {value}  \n" for name, value in about.items())
    table = f"{heading}\n{report.markdown(found)}\n{report.losses(found)}"
    (wanted.output / "bench.json").write_text(json.dumps(document, indent=1, ensure_ascii=False))
    (wanted.output / "bench.svg").write_text(report.plot(found))
    (wanted.output / "bench.md").write_text(table)
    if wanted.write:
        report.write_between(wanted.write, table)
    if earlier is not None:
        print(f"\n{report.before_and_after(earlier, found)}")
    print(f"written to {wanted.output}: bench.json, bench.svg and bench.md", file=sys.stderr)


if __name__ == "__main__":
    as_in_a_foreground_job()
    main()
