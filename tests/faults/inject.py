"""Let the kernel fail: the Nth system call of a kind returns an error, or the process dies in it.

Afterwards, with nothing failing any more, all that was acknowledged has to be true. This prints a table.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

import trio

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.store import DB
from agentd_client import AgentdError, Client
from tests.e2e.daemon import Daemon, Home, scratch_home
from tests.faults.script import STORE_FAILED
from tests.faults.strace import SECONDS, Case, Strace, why_not

CALLS = ("pwrite64", "fdatasync", "fsync", "openat", "ftruncate", "rename", "fallocate")
FAULTS = ("EIO", "ENOSPC", "EINTR", "KILL")
OCCURRENCES = range(1, 11)

UNTOUCHED, SERVED, CLEAN_ERROR, KILLED = "not reached", "served all", "clean error", "killed, intact"


class FaultyError(Exception):
    """What must not happen: a traceback, a hang, or an acknowledged change that is gone."""


class Acknowledged:
    """What was answered. What was asked for and not answered may have happened or not."""

    def __init__(self) -> None:
        self.valid: set[str] = set()
        self.ended: set[str] = set()
        self.refused = False
        self._created: list[str] = []

    def asked(self, what: str, subject: str) -> None:
        if what == "reset":
            self.valid.clear()
        elif what == "revoke":
            self.valid.discard(subject)

    def done(self, what: str, subject: str) -> None:
        if what == "create":
            self._created.append(subject)
            self.valid.add(subject)
        elif what == "revoke":
            self.ended.add(subject)
        elif what == "reset":
            self.ended.update(self._created)

    def check(self, still_valid: set[str]) -> None:
        """Hold it against what is valid after all."""
        if lost := self.valid - still_valid:
            raise FaultyError(f"{len(lost)} acknowledged sessions are gone")
        if back := self.ended & still_valid:
            raise FaultyError(f"{len(back)} ended sessions are back")


def script_on_a_new_store(case: Case) -> str:
    with tempfile.TemporaryDirectory(prefix="agentd-inject-") as name:
        return _run_script(Path(name), case)


def script_on_an_existing_store(case: Case) -> str:
    with tempfile.TemporaryDirectory(prefix="agentd-inject-") as name:
        folder = Path(name)
        assert _run_script(folder, Case("sync", "EIO", 1)) == UNTOUCHED
        return _run_script(folder, case)


def _run_script(folder: Path, case: Case) -> str:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.script", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            with Strace(process.pid, case, folder) as strace:
                out, err = process.communicate("go\n", timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise FaultyError("it hangs") from None
        finally:
            process.kill()
    _check_ending(process.returncode, err)
    acknowledged = _heard(out)
    try:
        trio.run(_check, folder, acknowledged)
    except AgentdError as error:
        raise FaultyError(f"afterwards: {error.code}: {error.sentence}; before: {out[-800:]}") from error
    return _verdict(strace.injected, process.returncode, acknowledged.refused)


def _heard(out: str) -> Acknowledged:
    """What the script told."""
    acknowledged = Acknowledged()
    for line in out.splitlines():
        verb, what, subject = (line + "  ").split(" ", 2)
        subject = subject.strip()
        if verb == "trying":
            acknowledged.asked(what, subject)
        elif verb == "done":
            acknowledged.done(what, subject)
        elif verb == "refused":
            acknowledged.refused = True
    return acknowledged


async def _check(folder: Path, acknowledged: Acknowledged) -> None:
    async with (
        await KeyRing.create_key_ring(keys_path=folder / "keys") as key_ring,
        await DB.create_db(db_path=folder / "store", key_ring=key_ring) as db,
        await SessionManager.create_session_manager(db=db, key_ring=key_ring) as manager,
    ):
        known = acknowledged.valid | acknowledged.ended
        acknowledged.check({token for token in known if await manager.verify_token(token)})
        await manager.create_token()


def the_agent(case: Case) -> str:
    with scratch_home() as home:
        daemon = home.start().ready()
        try:
            with Strace(daemon.process.pid, case, home.path) as strace:
                acknowledged = _use_the_agent(daemon)
                code = daemon.process.poll()
                code = daemon.stop() if code is None else code
        except subprocess.TimeoutExpired:
            raise FaultyError("it hangs") from None
        finally:
            if daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait()
        if acknowledged.refused and code == -signal.SIGTERM:
            code = STORE_FAILED  # it was already ending by itself, past the point where it listens to signals
        _check_ending(code, daemon.log.read_text())
        _check_the_agent(home, acknowledged)
        return _verdict(strace.injected, code, acknowledged.refused)


def _use_the_agent(daemon: Daemon) -> Acknowledged:
    acknowledged = Acknowledged()

    def attempt(what: str, call: Callable[[], str], subject: str = "") -> str | None:
        if daemon.process.poll() is not None:
            return None  # killed: nobody would answer
        acknowledged.asked(what, subject)
        try:
            result = call()
        except AgentdError:
            acknowledged.refused = True
            return None
        acknowledged.done(what, subject or result)
        return result

    with daemon.client(timeout=2) as agent:

        def create(agent: Client = agent) -> str:
            return agent.create_token().token

        first = attempt("create", create)
        attempt("create", create)
        attempt("create", create)
        if first is not None:
            attempt("revoke", lambda: str(agent.revoke_token(first)), first)
        attempt("reset", agent.reset_key)
        attempt("create", create)
    return acknowledged


def _check_the_agent(home: Home, acknowledged: Acknowledged) -> None:
    daemon = home.start().ready()
    try:
        with daemon.client() as agent:
            known = acknowledged.valid | acknowledged.ended
            acknowledged.check({token for token in known if agent.verify_token(token)})
            agent.create_token()
    except AgentdError as error:
        raise FaultyError(f"afterwards: {error.code}: {error.sentence}") from error
    finally:
        daemon.stop()


def _check_ending(code: int, log: str) -> None:
    if "Traceback" in log or code not in (0, STORE_FAILED, -signal.SIGKILL):
        raise FaultyError(f"exit {code}: {log[-800:]}")


def _verdict(injected: bool, code: int, refused: bool) -> str:
    if code == -signal.SIGKILL:
        return KILLED
    if not injected:
        return UNTOUCHED
    return CLEAN_ERROR if code or refused else SERVED


SUBJECTS: dict[str, Callable[[Case], str]] = {
    "new": script_on_a_new_store,
    "existing": script_on_an_existing_store,
    "agent": the_agent,
}


def run(subject: str, case: Case) -> str:
    """How one case ended; a fault is told, not raised."""
    try:
        return SUBJECTS[subject](case)
    except FaultyError as error:
        return f"FAULTY: {error}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.inject", description=__doc__)
    parser.add_argument(
        "subjects",
        nargs="*",
        metavar="SUBJECT",
        help=f"of {', '.join(SUBJECTS)}; all of them where none is named",
    )
    subjects = parser.parse_args().subjects
    if unknown := [subject for subject in subjects if subject not in SUBJECTS]:
        parser.error(f"there is no subject {unknown[0]!r}; there are {', '.join(SUBJECTS)}")
    if reason := why_not():
        print(reason)
        return 77
    faulty = 0
    for subject in subjects or SUBJECTS:
        print(f"\n{subject}")
        print(f"{'call':10} {'fault':7}{UNTOUCHED:>14}{SERVED:>12}{CLEAN_ERROR:>13}{KILLED:>16}{'FAULTY':>8}")
        for call, fault in product(CALLS, FAULTS):
            ends = Counter[str]()
            for when in OCCURRENCES:
                end = run(subject, Case(call, fault, when))
                if end.startswith("FAULTY"):
                    print(f"  {call} {fault} {when}: {end}")
                ends[end.partition(":")[0]] += 1
            faulty += ends["FAULTY"]
            print(
                f"{call:10} {fault:7}{ends[UNTOUCHED]:>14}{ends[SERVED]:>12}{ends[CLEAN_ERROR]:>13}"
                f"{ends[KILLED]:>16}{ends['FAULTY']:>8}",
                flush=True,
            )
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
