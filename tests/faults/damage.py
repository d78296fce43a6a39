"""Damage a real store in hundreds of ways, and see what it says yes to.

Each damaged store is opened in a process of its own, so that a death by a signal is seen. This prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lmdb
import trio

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.store import DB
from agentd_client import AgentdError
from tests.faults.damages import DAMAGES, Originals

HANG_SECONDS = 300  # then the child dies of SIGALRM
MAP_BYTES = 512 * 1024
SESSIONS = 400


@dataclass
class Tokens:
    """What a whole store says of each."""

    valid: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)  # revoked, reset, of another agent, or not a token
    last_ended: str = ""  # by the store's very last commit


@dataclass
class Outcome:
    """What became of one damaged store."""

    damage: str
    seed: int
    end: str  # "served", "refused", "faulty" (an error that is not the agent's own), or a signal's name
    told: str = ""
    yes: int = 0
    wrong: list[str] = field(default_factory=list)


async def make(folder: Path) -> tuple[Tokens, bytes]:
    """A store with sessions that are valid, revoked and reset, and its data file as it once was."""
    draw, tokens = random.Random(0), Tokens()
    async with await KeyRing.create_key_ring(keys_path=folder / "keys") as key_ring:
        db = DB(folder / "store", key_ring, map_bytes=MAP_BYTES)
        await db.start()
        async with db, await SessionManager.create_session_manager(db=db, key_ring=key_ring) as manager:
            await db.put("large", bytes(20_000))
            tokens.ended = [await manager.create_token() for _ in range(50)]
            await manager.reset_key()
            made = [await manager.create_token() for _ in range(SESSIONS)]
            draw.shuffle(made)
            await db.stop()
            older = (folder / "store" / "data.mdb").read_bytes()
            await db.start()
            revoked, tokens.valid = made[:150], made[150:]
            for token in revoked:
                assert await manager.revoke_token(token)
            tokens.valid += [await manager.create_token() for _ in range(50)]
            tokens.last_ended = await manager.create_token()
            assert await manager.revoke_token(tokens.last_ended)
            tokens.ended += [*revoked, tokens.last_ended, tokens.valid[0] + "A", tokens.valid[0][:-4]]
    return tokens, older


async def use(folder: Path, tokens: Tokens) -> dict[str, Any]:
    """Open a damaged store, ask it everything, write to it, and close it."""
    yes: set[str] = set()
    refusals: list[str] = []

    async with await KeyRing.create_key_ring(keys_path=folder / "keys") as key_ring:
        try:
            db = DB(folder / "store", key_ring, map_bytes=MAP_BYTES)
            await db.start()
        except AgentdError as error:
            return {"end": "refused", "told": _told(error), "yes": []}
        async with db:
            manager = SessionManager(db, key_ring)
            try:
                await manager.start()
                for token in tokens.valid + tokens.ended:
                    try:
                        if await manager.verify_token(token):
                            yes.add(token)
                    except AgentdError as error:
                        refusals.append(_told(error))
                for write in (
                    manager.create_token,
                    lambda: manager.revoke_token(tokens.valid[0]),
                    lambda: manager.revoke_token(tokens.valid[-1]),
                    manager.create_token,
                    manager.sweep,
                    manager.reset_key,
                ):
                    try:
                        await write()
                    except AgentdError as error:
                        refusals.append(_told(error))
                await manager.stop()
            except AgentdError as error:
                refusals.append(_told(error))
    return {"end": "served", "told": refusals[0] if refusals else "", "yes": sorted(yes)}


def _told(error: AgentdError) -> str:
    return f"{error.code}: {error.sentence}"


def in_a_child(folder: Path, tokens: Tokens) -> tuple[str, dict[str, Any]]:
    """`use` in a forked process; how it ended, and what it told."""
    report, stderr = folder / "report", folder / "stderr"
    pid = os.fork()
    if not pid:
        os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT, 0o600), 2)
        signal.alarm(HANG_SECONDS)
        code = 1
        try:
            report.write_text(json.dumps(trio.run(use, folder, tokens)))
            code = 0
        except BaseException as error:
            report.write_text(json.dumps({"end": "faulty", "told": repr(error), "yes": []}))
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        told = stderr.read_text(errors="replace")[-300:]
        return signal.Signals(os.WTERMSIG(status)).name, {"told": told, "yes": []}
    found = json.loads(report.read_text())
    return found.pop("end"), found


def run_all(how_many: int, seed: int) -> list[Outcome]:
    """Damage a store so many times, each kind of damage in turn."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="agentd-damage-") as name:
        base = Path(name)
        tokens, older = trio.run(make, base / "whole")
        originals = Originals(older, _other_agents(base), _foreign_lmdb(base))
        for number in range(how_many):
            kind = list(DAMAGES)[number % len(DAMAGES)]
            damaged = base / "damaged"
            shutil.copytree(base / "whole", damaged)
            DAMAGES[kind](random.Random(f"{seed} {number}"), damaged / "store", originals)
            end, found = in_a_child(damaged, tokens)
            shutil.rmtree(damaged)
            yes = set(found["yes"])
            wrong = [
                "last commit undone" if token == tokens.last_ended else f"ended token {place}"
                for place, token in enumerate(tokens.ended)
                if token in yes
            ]
            outcomes.append(Outcome(kind, number, end, found["told"], len(yes & set(tokens.valid)), wrong))
    return outcomes


def _other_agents(base: Path) -> bytes:
    trio.run(make, base / "other")
    return (base / "other" / "store" / "data.mdb").read_bytes()


def _foreign_lmdb(base: Path) -> bytes:
    with (
        lmdb.open(str(base / "foreign"), map_size=1 << 20) as environment,
        environment.begin(write=True) as txn,
    ):
        for number in range(500):
            txn.put(b"%d" % number, b"value" * 20)
    return (base / "foreign" / "data.mdb").read_bytes()


def is_older_state(outcome: Outcome) -> bool:
    """Whether what was wrongly affirmed is the store of one commit ago, whole."""
    return outcome.wrong == ["last commit undone"]


def table(outcomes: list[Outcome]) -> str:
    lines = [
        f"{'damage':30}{'cases':>6}{'refused':>9}{'served':>8}{'all yes':>9}{'wrong':>7}{'older':>7}{'signal':>8}{'faulty':>8}"
    ]
    most = max(outcome.yes for outcome in outcomes)
    for kind in [*DAMAGES, "all"]:
        some = [outcome for outcome in outcomes if kind in (outcome.damage, "all")]
        ends = Counter(outcome.end for outcome in some)
        older = sum(map(is_older_state, some))
        figures = [
            len(some),
            ends.pop("refused", 0),
            ends.pop("served", 0),
            sum(outcome.yes == most for outcome in some),
            sum(bool(outcome.wrong) for outcome in some) - older,
            older,
        ]
        faulty = ends.pop("faulty", 0)
        widths = [6, 9, 8, 9, 7, 7]
        cells = "".join(f"{figure:>{width}}" for figure, width in zip(figures, widths, strict=True))
        lines.append(f"{kind:30}{cells}{sum(ends.values()):>8}{faulty:>8}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.damage", description=__doc__)
    parser.add_argument("how_many", nargs="?", type=int, default=500, help="stores to damage  [default: 500]")
    parser.add_argument("seed", nargs="?", type=int, default=1, help="of chance  [default: 1]")
    parser.add_argument("--json", action="store_true", help="print every outcome as JSON, and nothing else")
    wanted = parser.parse_args()
    if wanted.how_many < 1:
        parser.error("it takes one store at least")
    outcomes = run_all(wanted.how_many, wanted.seed)
    if wanted.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes]))
        return 0
    faulty = [outcome for outcome in outcomes if outcome.end not in ("served", "refused") or outcome.wrong]
    for outcome in faulty:
        print(outcome)
    print(Counter(outcome.told.partition(":")[0] for outcome in outcomes if outcome.told))
    print(table(outcomes))
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
