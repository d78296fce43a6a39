"""What is measured, and the yardstick for each."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import trio

from agentd.crypto import random_bytes
from agentd.keys import KeyRing
from agentd.sessions import SessionManager, SystemClock
from agentd.sessions.identifiers import session_id
from agentd.sessions.records import SessionRecord, session_path
from agentd.sessions.rules import ends_after, millisecond
from agentd.store import DB, View
from agentd_client import Session
from tests.bench import load
from tests.bench.figures import RATE, Row, alone, compare
from tests.e2e.daemon import Daemon, Home, scratch_home, serving

CALLS = 3_000
CONNECTIONS = 64
DEPTH = 32
EXPIRY_SECONDS = 8 * 3600
STEP = 500  # records in one transaction while a store is filled
MICROSECONDS, MILLISECONDS = 1e6, 1e3


@contextmanager
def echo(folder: Path) -> Iterator[str]:
    path = str(folder / "echo.sock")
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.echo", path])
    try:
        while not os.path.exists(path):
            time.sleep(0.01)
        yield path
    finally:
        process.terminate()
        process.wait()


def tokens(daemon: Daemon, count: int) -> list[str]:
    with daemon.client() as agent:
        return [agent.create_token(label="bench").token for _ in range(count)]


def one_by_one(path: str, requests: list[bytes]) -> float:
    """The median of calls one after the other, in microseconds."""
    return statistics.median(load.one_client(path, requests)) * MICROSECONDS


def verifying(home: Home, daemon: Daemon, bare: str, rounds: int) -> Iterator[Row]:
    """verifyToken in its four shapes, beside a bare echo of the same message."""
    agent = str(home.socket)
    known = [load.request(1, "verifyToken", {"token": token}) for token in tokens(daemon, 1)] * CALLS
    beside = "bare trio + msgpack echo"
    yield compare(
        "verifyToken, one client, p50", "µs", lambda: one_by_one(agent, known),
        beside, lambda: one_by_one(bare, known), rounds, aim=1.3,
    )  # fmt: skip

    def unseen() -> float:
        new = [load.request(1, "verifyToken", {"token": token}) for token in tokens(daemon, CALLS // 10)]
        return one_by_one(agent, new)

    yield compare(
        "verifyToken, every token new, p50", "µs", unseen, beside, lambda: one_by_one(bare, known), rounds
    )
    many = known * 3
    yield compare(
        f"verifyToken, {CONNECTIONS} connections", RATE, lambda: load.many_clients(agent, many, CONNECTIONS),
        beside, lambda: load.many_clients(bare, many, CONNECTIONS), rounds, aim=0.7,
    )  # fmt: skip
    token = tokens(daemon, 1)[0]
    distinct = [load.request(at, "verifyToken", {"token": token}) for at in range(CALLS * 3)]
    yield compare(
        f"verifyToken, {DEPTH} in flight", RATE, lambda: load.in_flight(agent, distinct, DEPTH),
        beside, lambda: load.in_flight(bare, distinct, DEPTH), rounds, aim=0.4,
    )  # fmt: skip


def creating(home: Home, bare: str, rounds: int) -> Iterator[Row]:
    """createToken, beside one raw LMDB commit of a record of the same size, without and with an echo."""
    agent = str(home.socket)
    request = load.request(1, "createToken", {"label": "bench"})
    folder = home.path / "raw"
    folder.mkdir()
    environment = lmdb.open(str(folder), map_size=1 << 26)

    def commit() -> float:
        seconds = []
        for number in range(200):
            begun = time.perf_counter()
            with environment.begin(write=True) as txn:
                txn.put(b"%d" % number, os.urandom(260))
            seconds.append(time.perf_counter() - begun)
        return statistics.median(seconds) * MICROSECONDS

    def create() -> float:
        return one_by_one(agent, [request] * 200)

    yield compare("createToken, one client, p50", "µs", create, "one LMDB commit", commit, rounds)
    yield compare(
        "createToken, one client, p50", "µs", create,
        "one LMDB commit + one echo", lambda: commit() + one_by_one(bare, [request] * 200), rounds, aim=1.5,
    )  # fmt: skip
    yield compare(
        f"createToken, {CONNECTIONS} clients", RATE,
        lambda: load.many_clients(agent, [request] * 4000, CONNECTIONS),
        "one client's rate", lambda: 200 / sum(load.one_client(agent, [request] * 200)), rounds, aim=10,
    )  # fmt: skip
    environment.close()


def token_file(home: Home, rounds: int) -> Iterator[Row]:
    """The token file, beside the same file operations without a rule around them."""
    path = home.path / "tokens" / "session-token"
    session = Session.create_session(session_token_path=path)
    token = "v4.local." + "x" * 300
    session.write_token(token)
    raw, temporary = path.with_name("raw"), path.with_name("raw.new")

    def each(action: Callable[[], object], count: int) -> float:
        begun = time.perf_counter()
        for _ in range(count):
            action()
        return (time.perf_counter() - begun) / count * MICROSECONDS

    def write_raw() -> None:
        with temporary.open("w") as file:
            file.write(token)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, raw)
        folder = os.open(raw.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    yield compare(
        "token file, write", "µs", lambda: each(lambda: session.write_token(token), 100),
        "write, fsync, rename, fsync", lambda: each(write_raw, 100), rounds,
    )  # fmt: skip
    yield compare(
        "token file, read", "µs", lambda: each(session.read_token, 2000),
        "open, read, close", lambda: each(raw.read_text, 2000), rounds,
    )  # fmt: skip


def process_seconds(*command: str, environ: dict[str, str] | None = None) -> float:
    begun = time.perf_counter()
    subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return (time.perf_counter() - begun) * MILLISECONDS


def start_to_ready(home: Home) -> float:
    """From exec to the first answer; asked every millisecond, which Client does not."""
    begun = time.perf_counter()
    daemon = home.start()
    while True:
        try:
            load.one_client(str(home.socket), [load.request(1, "hello", {})])
            break
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.001)
    seconds = time.perf_counter() - begun
    daemon.stop()
    return seconds * MILLISECONDS


def starting(home: Home, rounds: int) -> Iterator[Row]:
    """What somebody waits for at a prompt. The agent of `home` must not be running."""
    python = sys.executable
    agentctl = str(Path(python).with_name("agentctl"))
    home.agentd("init")
    yield compare(
        "agent, start to ready", "ms", lambda: start_to_ready(home),
        "python -c 'import trio'", lambda: process_seconds(python, "-c", "import trio"), rounds,
    )  # fmt: skip
    with serving(home):
        home.agentctl("login")
        yield compare(
            "agentctl verify", "ms", lambda: process_seconds(agentctl, "verify", environ=home.environ),
            "python -c 'import click'", lambda: process_seconds(python, "-c", "import click"), rounds * 3,
            aim=1.7,
        )  # fmt: skip
    yield compare(
        "import agentd_client", "ms", lambda: process_seconds(python, "-c", "import agentd_client"),
        "python -c ''", lambda: process_seconds(python, "-c", ""), rounds * 3,
    )  # fmt: skip


def ssh_agent(home: Home, rounds: int) -> Iterator[Row]:
    """A neighbour: what ssh-agent takes for a list and for a signature, over its own socket."""
    if not (shutil.which("ssh-agent") and shutil.which("ssh-keygen") and shutil.which("ssh-add")):
        return
    from tests.bench import ssh

    with ssh.agent(home.path) as (path, blob):
        yield alone(
            "ssh-agent, list identities, p50", "µs", lambda: ssh.list_p50(path) * MICROSECONDS, rounds
        )
        yield alone(
            "ssh-agent, Ed25519 signature, p50", "µs", lambda: ssh.sign_p50(path, blob) * MICROSECONDS, rounds
        )


async def populate(home: Home, count: int) -> None:
    """Open `count` sessions straight in the store; nobody needs their tokens."""
    clock = SystemClock()
    async with (
        await KeyRing.create_key_ring(keys_path=home.state / "keys") as key_ring,
        await DB.create_db(db_path=home.state / "store", key_ring=key_ring) as db,
        await SessionManager.create_session_manager(db=db, key_ring=key_ring) as manager,
    ):
        key_id = manager.key_id
        for start in range(0, count, STEP):
            now = clock.read()
            expires, boot_expires = ends_after(EXPIRY_SECONDS, now)
            records = [
                SessionRecord(
                    session_id(random_bytes(16), at), "bench", millisecond(now.wall), expires, now.boot_id,
                    boot_expires, opened_uid=0, opened_pid=1, lasts=EXPIRY_SECONDS,
                )
                for at in range(start, min(start + STEP, count))
            ]  # fmt: skip

            def put(view: View, records: list[SessionRecord] = records) -> None:
                for record in records:
                    view.put(session_path(key_id, record.session_id), record.encode())

            await db.write(put)


def scaling(few: int, many: int, rounds: int) -> Iterator[Row]:
    """The same questions with few and with many sessions in the store."""
    with scratch_home() as small, scratch_home() as large:
        trio.run(populate, small, few)
        trio.run(populate, large, many)
        beside = f"the same with {few:,} sessions"
        yield compare(
            f"start to ready, {many:,} sessions", "ms", lambda: start_to_ready(large),
            beside, lambda: start_to_ready(small), rounds, aim=1.2,
        )  # fmt: skip
        with serving(small) as one, serving(large) as other:

            def p50(daemon: Daemon) -> Callable[[], float]:
                known = [load.request(1, "verifyToken", {"token": token}) for token in tokens(daemon, 100)]
                return lambda: one_by_one(str(daemon.home.socket), known * 20)

            yield compare(
                f"verifyToken p50, {many:,} sessions", "µs", p50(other), beside, p50(one), rounds, aim=1.1
            )


def controlling(few: int, many: int, rounds: int) -> Iterator[Row]:
    """What a person does with few and with many sessions in the store. The reset comes last: it ends them."""
    agentctl = str(Path(sys.executable).with_name("agentctl"))
    with scratch_home() as small, scratch_home() as large:
        trio.run(populate, small, few)
        trio.run(populate, large, many)
        beside = f"the same with {few:,} sessions"
        with serving(small) as one, serving(large) as other:

            def verify(daemon: Daemon) -> Callable[[], float]:
                known = [load.request(1, "verifyToken", {"token": token}) for token in tokens(daemon, 1)]
                return lambda: one_by_one(str(daemon.home.socket), known * CALLS)

            def reset(daemon: Daemon) -> float:
                # Their records stay until they are swept: every reset meets as many as the first.
                return one_by_one(str(daemon.home.socket), [load.request(1, "resetKey", {})] * 20)

            yield compare(
                f"agentctl list --limit 20, {many:,}", "ms",
                lambda: process_seconds(agentctl, "list", "--limit", "20", environ=large.environ), beside,
                lambda: process_seconds(agentctl, "list", "--limit", "20", environ=small.environ), rounds * 3,
            )  # fmt: skip
            yield compare(
                f"verifyToken p50, {many:,} sessions", "µs", verify(other), beside, verify(one), rounds
            )
            yield compare(
                f"resetKey p50, {many:,} sessions", "µs",
                lambda: reset(other), beside, lambda: reset(one), rounds,
            )  # fmt: skip


def private_memory(daemon: Daemon) -> float:
    """MiB that nobody else shares: Private_Clean and Private_Dirty of /proc/PID/smaps_rollup (proc(5))."""
    rollup = Path(f"/proc/{daemon.process.pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_")) / 1024


def every_row(rounds: int, many: int) -> Iterator[Row]:
    with scratch_home() as home:
        with serving(home) as daemon, echo(home.path) as bare:
            yield alone("idle private memory", "MiB", lambda: private_memory(daemon), 1, aim=40)
            yield from verifying(home, daemon, bare, rounds)
            yield from creating(home, bare, rounds)
        yield from token_file(home, rounds)
        yield from ssh_agent(home, rounds)
    with scratch_home() as home:
        yield from starting(home, rounds)
    yield from scaling(1_000, many, rounds)
    yield from controlling(100, 100_000, rounds)
