"""Sixteen programs that ask a person without end: what is the person shown, and how long does a verification take?

`python -m tests.faults.asking [SECONDS]` prints both, beside a calm run of the same length; 60 seconds where nothing
is said. All programs are of one user, half of them at the ask socket. They run at a lower priority, so that what is
measured is the agent and not how the kernel shares two processors.

`python -m tests.faults.asking --asker SOCKET NUMBER` is one of them. It asks until its standard input is closed, then
it says how it was answered.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

from agentd.approval.limits import MAX_NEW_OF_PROCESS, MAX_NEW_OF_USER
from agentd_client import AgentdError, Client, TooManyRequestsError
from agentd_client.protocol import methods
from tests.e2e.daemon import Home, scratch_home, serving
from tests.faults.approvers import FIRST_UID, open_to_everybody
from tests.faults.hostile import NICENESS, PAUSE_SECONDS, Figures
from tests.other_user import as_user

ASKERS = 16
LOOK_SECONDS = 0.1
"""How often the person looks at the list."""

SHOWN = "shown"


class Outcome(NamedTuple):
    """The good program's calls, and what there was beside them.

    most_waiting: requests that the person saw at the same time. seen: those seen at any time. answers: how the
    askers' requests were answered, by code, or `SHOWN`. resident: the agent's memory before and after, in bytes. left:
    requests that there still are after the askers' end.
    """

    calls: dict[str, Figures]
    most_waiting: int
    seen: set[str]
    answers: Counter[str]
    resident: tuple[int, int]
    left: int


def ask(path: str, number: int) -> Counter[str]:
    """Be one asker: ask for something else each time; some take their requests back, to make room for others."""
    answers = Counter[str]()
    with Client.connect(path, timeout=60) as agent:
        for attempt in itertools.count():
            if select.select([sys.stdin], [], [], 0)[0]:
                break
            try:
                found = agent._carry_out(
                    methods.REQUEST_TOKEN.call(
                        scopes=["read"], expiry=60 + attempt, reason=f"attempt {attempt}", wait=0
                    )
                )
                answers[SHOWN] += 1
                if number % 4 >= 2:
                    agent.withdraw_request(found.id)
            except AgentdError as error:
                answers[error.code] += 1
    return answers


@contextmanager
def asking(paths: list[str], answers: Counter[str]) -> Iterator[None]:
    """Have a program ask at each path, and count in the end how they were answered."""
    with ExitStack() as stack:
        programs = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.faults.asking", "--asker", path, str(number)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number, path in enumerate(paths)
        ]
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
        yield
        for program in programs:
            assert program.stdin is not None
            program.stdin.close()
        for program in programs:
            assert program.stdout is not None
            answers.update(json.loads(program.stdout.readline()))


def look_and_verify(home: Home, seconds: float, seen: set[str]) -> tuple[dict[str, Figures], int]:
    """Be a good program and a person; the calls, and how many requests there were at the same time."""
    calls = {"verifyToken": Figures([], []), "listRequests": Figures([], [])}
    most, looked = 0, 0.0

    def timed(name: str, call: Callable[[], object]) -> None:
        began = time.perf_counter()
        try:
            call()
        except AgentdError as error:
            calls[name].failures.append(f"{type(error).__name__}: {error}")
        else:
            calls[name].seconds.append(time.perf_counter() - began)

    def look() -> None:
        nonlocal most
        after, count = None, 0
        while True:
            page = agent.list_requests(after=after)
            seen.update(request.id for request in page.requests)
            count += len(page.requests)
            if (after := page.next) is None:
                break
        most = max(most, count)

    until = time.monotonic() + seconds
    with Client.connect(str(home.socket), timeout=60) as agent:
        token = agent.create_token(expiry=3600).token
        while time.monotonic() < until:
            timed("verifyToken", lambda: agent.verify_token(token))
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                timed("listRequests", look)
            time.sleep(PAUSE_SECONDS)
    for figures in calls.values():
        figures.seconds.sort()
    return calls, most


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run(askers: int, seconds: float) -> Outcome:
    """The good program and the person beside so many programs that ask."""
    answers, seen = Counter[str](), set[str]()
    with scratch_home() as home:
        path = home.path / "ask.sock"
        config = home.path / "config" / "agentd" / "config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(f'ask_socket_path = "{path}"\n')
        with serving(home) as daemon:
            before = resident_bytes(daemon.process.pid)
            paths = [str(path if number % 2 else home.socket) for number in range(askers)]
            with asking(paths, answers):
                calls, most = look_and_verify(home, seconds, seen)
            after = resident_bytes(daemon.process.pid)
            with daemon.client() as owner:
                while left := owner.list_requests().requests:  # until their ends are noticed
                    pass
    return Outcome(calls, most, seen, answers, (before, after), len(left))


class Flood(NamedTuple):
    """How requests of ever new users and processes were answered, and what is left of them.

    left, sessions: requests and sessions that there are afterwards. resident, descriptors: the agent's memory in bytes
    and its open files, after the first requests and after all.
    """

    answers: Counter[str]
    left: int
    sessions: int
    resident: tuple[int, int]
    descriptors: tuple[int, int]


def ask_in_turn(path: str, owner_uid: int) -> dict[str, int]:
    """Ask as often as a process may, and take back all requests but the last, which ends with the process."""
    answers = Counter[str]()
    with Client.connect(path, timeout=60, agent_uid=owner_uid) as agent:
        while answers[SHOWN] < MAX_NEW_OF_PROCESS:
            attempt = methods.REQUEST_TOKEN.call(
                expiry=60 + answers[SHOWN], reason="r" * 200, label="l" * 200, wait=0
            )
            try:
                found = agent._carry_out(attempt)
            except TooManyRequestsError:  # the ends of earlier processes are not noticed yet
                continue
            answers[SHOWN] += 1
            if answers[SHOWN] < MAX_NEW_OF_PROCESS:
                agent.withdraw_request(found.id)
    return answers


def flood(home: Home, count: int, warm_up: int) -> Flood:
    """Have so many requests made that are shown, by as many users and processes as that takes, which takes root."""
    path = open_to_everybody(home)
    answers = Counter[str]()
    resident, descriptors = [], []
    with serving(home) as daemon, daemon.client() as owner:
        pid = daemon.process.pid

        def measure() -> int:
            while left := owner.list_requests().requests:  # until their ends are noticed
                pass
            resident.append(resident_bytes(pid))
            descriptors.append(len(os.listdir(f"/proc/{pid}/fd")))
            return len(left)

        for number in range(count // MAX_NEW_OF_PROCESS):
            if number == warm_up // MAX_NEW_OF_PROCESS:
                measure()
            uid = FIRST_UID + number * MAX_NEW_OF_PROCESS // MAX_NEW_OF_USER
            answers.update(as_user(partial(ask_in_turn, path, os.geteuid()), uid))
        left = measure()
        sessions = len(owner.list_sessions().sessions)
    return Flood(answers, left, sessions, (resident[0], resident[1]), (descriptors[0], descriptors[1]))


def report(name: str, outcome: Outcome) -> None:
    print(f"\n{name:20}{'p50 ms':>9}{'p99 ms':>9}{'worst ms':>9}{'calls':>8}{'failed':>7}")
    for call, figures in outcome.calls.items():
        print(f"  {call:18}{figures.row()}")
    print(
        f"  the agent's memory: {' MB, then '.join(f'{each / 1e6:.1f}' for each in outcome.resident)} MB",
        flush=True,
    )


def main(seconds: float) -> int:
    report("calm", run(0, seconds))
    outcome = run(ASKERS, seconds)
    report(f"{ASKERS} askers", outcome)
    asked = sum(outcome.answers.values())
    print(f"  they asked {asked} times: {dict(outcome.answers.most_common())}")
    print(f"  a person was shown {outcome.answers[SHOWN]} requests, at most {outcome.most_waiting} at a time")
    return 1 if any(figures.failures for figures in outcome.calls.values()) else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--asker"]:
        os.nice(NICENESS)
        print("ready", flush=True)
        print(json.dumps(ask(sys.argv[2], int(sys.argv[3]))), flush=True)
    else:
        sys.exit(main(float((sys.argv[1:] or ["60"])[0])))
