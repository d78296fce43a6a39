"""Many processes that share one token file while its session is renewed under them.

`python -m tests.e2e.sharing [PROCESSES [LIFETIME_SECONDS]]`. It takes as long as the renewals do: about two
lifetimes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any, NamedTuple

from agentd_client import AgentdError, Client, Session
from agentd_client.protocol.methods import RENEW_TOKEN
from agentd_client.protocol.results import AuditEntry
from tests.e2e.daemon import START_SECONDS, Daemon, scratch_home, serving

RENEWALS = 3
PAUSE_SECONDS = 0.02
TOLERANCE_SECONDS = 0.01  # the record's times are whole milliseconds


class Outcome(NamedTuple):
    """calls: of `check_session` in all processes; failed: how those failed that did.

    renew_requests: that the processes sent. renewals: those that the agent carried out, the first one first.
    """

    calls: int
    failed: list[str]
    renew_requests: int
    renewals: list[AuditEntry]
    ended_cleanly: int


class CountingClient(Client):
    """Counts the renewals that it asks for."""

    renew_requests = 0

    def _carry_out(self, call: Any, seconds: float | None = None) -> Any:
        self.renew_requests += call.method == RENEW_TOKEN
        return super()._carry_out(call, seconds)


def use(socket: str, path: str) -> dict[str, object]:
    """One process: use the session until it has been renewed `RENEWALS` times."""
    calls, failed, generation = 0, [], 0
    deadline = time.monotonic() + START_SECONDS
    with CountingClient.connect(socket) as agent, Session.create_session(path) as session:
        while generation < RENEWALS and time.monotonic() < deadline:
            calls += 1
            try:
                found = agent.check_session(session)
            except AgentdError as error:
                failed.append(error.code)
                continue
            if found.session is None or not found.valid:
                failed.append(str(found.reason))
            else:
                generation = found.session.generation
            time.sleep(PAUSE_SECONDS)
    return {"calls": calls, "failed": failed, "renew_requests": agent.renew_requests, "seen": generation}


def share(daemon: Daemon, processes: int, lifetime: int) -> Outcome:
    """Let so many processes use one session of so many seconds."""
    path = str(daemon.home.path / "tokens" / "session-token")
    with daemon.client() as agent:
        with subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.e2e.sharing",
                "--fork",
                str(processes),
                str(daemon.home.socket),
                path,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as crowd:
            assert crowd.stdout is not None
            assert crowd.stdout.readline() == "ready\n"
            created = agent.create_token(lifetime)
            Session.create_session(path, created.token).stop()
            out, _ = crowd.communicate("go\n", timeout=2 * START_SECONDS)
        renewals: list[AuditEntry] = []
        after: str | None = None
        while True:
            page = agent.list_audit(after=after)
            renewals += [e for e in page.entries if (e.kind, e.session_id) == ("renewed", created.id)]
            if (after := page.next) is None:
                break
    told = [json.loads(line) for line in out.splitlines()]
    return Outcome(
        sum(each["calls"] for each in told),
        [reason for each in told for reason in each["failed"]],
        sum(each["renew_requests"] for each in told),
        renewals[::-1],
        sum(each["seen"] >= RENEWALS for each in told),
    )


def periods(found: Outcome) -> list[float]:
    """The seconds between one renewal and the next."""
    return [later.at - one.at for one, later in zip(found.renewals, found.renewals[1:], strict=False)]


def fork(count: int, socket: str, path: str) -> None:
    """Be `count` processes; each tells one line."""
    reader, writer = os.pipe()
    children = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            os.read(reader, 1)  # until everything is there
            with suppress(BaseException):
                told = json.dumps(use(socket, path)) + "\n"
                os.write(1, told.encode())  # short enough to stay in one piece, pipe(7)
            os._exit(0)
        children.append(pid)
    print("ready", flush=True)
    sys.stdin.readline()
    os.close(writer)
    for pid in children:
        os.waitpid(pid, 0)


def main(processes: int, lifetime: int) -> int:
    with scratch_home() as home, serving(home) as daemon:
        found = share(daemon, processes, lifetime)
    between = ", ".join(f"{seconds:.2f}" for seconds in periods(found))
    print(
        f"{processes} processes, {found.ended_cleanly} of them to the end: {found.calls} calls, "
        f"{len(found.failed)} failed {sorted(set(found.failed))}; {found.renew_requests} requests to renew, "
        f"{len(found.renewals)} renewals, {between} s between them (lifetime {lifetime} s)"
    )
    return 1 if found.failed or found.ended_cleanly < processes else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fork"]:
        fork(int(sys.argv[2]), *sys.argv[3:5])
    else:
        numbers = [int(word) for word in sys.argv[1:]]
        sys.exit(main(*numbers, *(50, 3)[len(numbers) :]))
