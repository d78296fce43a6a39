"""Let the kernel fail while a passphrase is changed: the old or the new one must open the key file afterwards.

`python -m tests.faults.passphrase` prints a table. `python -m tests.faults.passphrase CHANGE FOLDER` is one change, which
waits for a line on standard input so that a tracer can attach.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from itertools import product
from pathlib import Path

import trio

from agentd.keys import Cost, KeyRing, change_passphrase
from agentd.keys.argon2 import MIN_MEMORY_BYTES, MIN_PASSES
from agentd_client import AgentdError
from agentd_client.errors import AgentLockedError, PassphraseError
from tests.faults.strace import SECONDS, Case, Strace, why_not

CALLS = ("openat", "flock", "fchmod", "write", "pwrite64", "fsync", "fdatasync", "rename", "unlink")
FAULTS = ("EIO", "ENOSPC", "KILL")
OCCURRENCES = range(1, 7)

CHANGES: dict[str, tuple[str | None, str | None]] = {
    "set": (None, "new"),
    "change": ("old", "new"),
    "take": ("old", None),
}
CHEAP = Cost(MIN_MEMORY_BYTES, MIN_PASSES)

UNTOUCHED, OLD, NEW, FAULTY = "not reached", "old opens", "new opens", "UNUSABLE"
REFUSED = 74


def run(change: str, case: Case) -> str:
    """How one case ended: which passphrase opens the key file, or what is wrong with it."""
    old, new = CHANGES[change]
    with tempfile.TemporaryDirectory(prefix="agentd-passphrase-") as name:
        folder = Path(name)
        before = trio.run(_agent_id, folder / "keys", old)
        assert before
        injected, code, err = _change_under(case, change, folder)
        if "Traceback" in err or code not in (0, REFUSED, -signal.SIGKILL):
            return f"{FAULTY}: exit {code}: {err[-800:]}"
        try:
            opened = [trio.run(_agent_id, folder / "keys", passphrase) for passphrase in (old, new)]
        except AgentdError as error:
            return f"{FAULTY}: {error.code}: {error.sentence}"
        if [found for found in opened if found] != [before]:
            return f"{FAULTY}: it opens as {opened}, not as {before}"
        if (left := [found.name for found in (folder / "keys").iterdir()]) != ["root.key"]:
            return f"{FAULTY}: {left} are left behind"
        if code == 0 and not opened[1]:
            return f"{FAULTY}: the change was acknowledged, and the old passphrase opens"
        return UNTOUCHED if not injected else NEW if opened[1] else OLD


def _change_under(case: Case, change: str, folder: Path) -> tuple[bool, int, str]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.passphrase", change, str(folder / "keys")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            with Strace(process.pid, case, folder) as strace:
                _, err = process.communicate("go\n", timeout=SECONDS)
        finally:
            process.kill()
    return strace.injected, process.returncode, err


async def _agent_id(keys: Path, passphrase: str | None) -> str | None:
    try:
        async with await KeyRing.create_key_ring(keys_path=keys, passphrase=passphrase, cost=CHEAP) as ring:
            return ring.agent_id
    except (AgentLockedError, PassphraseError):
        return None


def change_once(change: str, keys: Path) -> int:
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        trio.run(lambda: change_passphrase(keys, *CHANGES[change], cost=CHEAP))
    except AgentdError as error:
        with suppress(OSError):  # the fault may strike here too
            print(error.code, error.sentence, file=sys.stderr)
        return REFUSED
    return 0


def main() -> int:
    if reason := why_not():
        print(reason)
        return 77
    unusable = 0
    print(f"{'change':8} {'call':10} {'fault':7}{UNTOUCHED:>13}{OLD:>11}{NEW:>11}{FAULTY:>10}")
    for change, call, fault in product(CHANGES, CALLS, FAULTS):
        ends = Counter[str]()
        for when in OCCURRENCES:
            end = run(change, Case(call, fault, when))
            if end.startswith(FAULTY):
                print(f"  {change} {call} {fault} {when}: {end}")
            ends[end.partition(":")[0]] += 1
        unusable += ends[FAULTY]
        print(
            f"{change:8} {call:10} {fault:7}{ends[UNTOUCHED]:>13}{ends[OLD]:>11}{ends[NEW]:>11}{ends[FAULTY]:>10}",
            flush=True,
        )
    print(f"unusable key files: {unusable}")
    return 1 if unusable else 0


if __name__ == "__main__":
    sys.exit(change_once(sys.argv[1], Path(sys.argv[2])) if sys.argv[1:] else main())
