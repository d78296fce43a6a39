"""What is measured beside what: verifying, creating, the Python clients, and starting."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import lmdb

from tests.bench import load
from tests.bench.figures import (
    RATE,
    AbsentError,
    Figure,
    Row,
    Sample,
    alone,
    by_itself,
    compare,
    figure,
    missing,
    processor_of,
)
from tests.bench.load import MICROSECONDS, Server
from tests.bench.neighbours import ASSUAN_VERSION, REDIS_GET, SSH_LIST, Neighbours, redis_set
from tests.bench.subject import Subject, run
from tests.bench.worker import Worker
from tests.e2e.daemon import Home

CALLS = 3_000
CREATES = 200
CONNECTIONS = 64
CLIENTS = 16
DEPTH = 32
SESSIONS = 3_000  # of which the commits are counted
ECHO = "bare trio + msgpack echo"
CREATE = load.request(1, "createToken", {"label": "bench"})


def tokens(agent: Server, count: int) -> list[str]:
    return [created["token"] for created in load.results(agent.path, [CREATE] * count)]


def verifications(agent: Server, tokens_wanted: int = 1) -> list[bytes]:
    return [load.request(1, "verifyToken", {"token": token}) for token in tokens(agent, tokens_wanted)]


def verifying(agent: Server, echo: Server, others: Neighbours, rounds: int) -> Iterator[Row]:
    """verifyToken over the socket: beside a bare echo of the same message, and beside what others do there."""
    known = verifications(agent) * CALLS
    yield compare(
        "verifyToken, one client, p50", "µs", lambda: agent.one_by_one(known),
        ECHO, lambda: echo.one_by_one(known), rounds, aim=1.25,
    )  # fmt: skip
    yield compare(
        "verifyToken, every token new, p50", "µs", lambda: agent.one_by_one(verifications(agent, CALLS // 10)),
        ECHO, lambda: echo.one_by_one(known[: CALLS // 10]), rounds, aim=2.2,
    )  # fmt: skip
    (token,) = tokens(agent, 1)
    distinct = [load.request(at, "verifyToken", {"token": token}) for at in range(CALLS * 3)]
    yield compare(
        f"verifyToken, {DEPTH} in flight", RATE, lambda: agent.in_flight(distinct, DEPTH),
        ECHO, lambda: echo.in_flight(distinct, DEPTH), rounds, aim=0.5,
    )  # fmt: skip
    many = known * 3
    yield compare(
        f"verifyToken, {CONNECTIONS} connections", RATE, lambda: agent.many_clients(many, CONNECTIONS),
        ECHO, lambda: echo.many_clients(many, CONNECTIONS), rounds, aim=0.9,
    )  # fmt: skip
    few = known[: CALLS // 5]
    yield compare(
        "verifyToken, connecting anew, p50", "µs", lambda: agent.connecting_anew(few),
        "a connection that is kept", lambda: agent.one_by_one(few), rounds, aim=2.0,
    )  # fmt: skip
    yield compare(
        f"verifyToken, {CLIENTS} clients", RATE, lambda: agent.many_clients(many, CLIENTS),
        f"Redis GET, {CLIENTS} clients", lambda: others.redis.many_clients([REDIS_GET] * len(many), CLIENTS),
        rounds, aim=0.35,
    )  # fmt: skip
    neighbours: list[tuple[str, Callable[[], Sample]]] = [
        ("Redis GET", lambda: others.redis.one_by_one([REDIS_GET] * CALLS)),
        ("ssh-agent, list identities", lambda: others.ssh_agent.server.one_by_one([SSH_LIST] * CALLS)),
        (
            "ssh-agent, Ed25519 signature",
            lambda: others.ssh_agent.server.one_by_one([others.ssh_agent.sign_request] * (CALLS // 3)),
        ),
        ("gpg-agent, GETINFO version", lambda: others.gpg_agent.one_by_one([ASSUAN_VERSION] * CALLS)),
    ]
    for beside, theirs in neighbours:
        yield compare(
            "verifyToken, one client, p50", "µs", lambda: agent.one_by_one(known), beside, theirs, rounds
        )


def creating(
    home: Home, agent: Server, echo: Server, in_process: Worker, others: Neighbours, rounds: int
) -> Iterator[Row]:
    """createToken over the socket, beside one raw LMDB commit of a record of the same size."""
    folder = home.path / "raw"
    folder.mkdir()
    with lmdb.open(str(folder), map_size=1 << 26) as environment:

        def commit() -> Sample:
            seconds, used = [], time.process_time()
            for number in range(CREATES):
                begun = time.perf_counter()
                with environment.begin(write=True) as txn:
                    txn.put(b"%d" % number, os.urandom(260))
                seconds.append(time.perf_counter() - begun)
            used = time.process_time() - used
            return Sample(statistics.median(seconds) * MICROSECONDS, used / CREATES * MICROSECONDS)

        def create() -> Sample:
            return agent.one_by_one([CREATE] * CREATES)

        yield compare("createToken, one client, p50", "µs", create, "one LMDB commit", commit, rounds)
        one = compare(
            "createToken, one client, p50", "µs", create, "one LMDB commit + one echo",
            lambda: Sample(commit().value + echo.one_by_one([CREATE] * CREATES).value), rounds, aim=2.2,
        )  # fmt: skip
    yield one
    yield processor_of(one, "createToken, processor time of the agent", "µs", aim=200)
    yield from create_in_parts(agent, echo, in_process, rounds)

    commits: list[float] = []

    def sessions_by_many() -> Sample:
        before = last_transaction(home)
        found = agent.many_clients([CREATE] * SESSIONS, CONNECTIONS)
        commits.append(last_transaction(home) - before)
        return found

    many = compare(
        f"createToken, {CONNECTIONS} clients", RATE, sessions_by_many, "one client's rate",
        lambda: Sample(CREATES / sum(load.one_client(agent.path, [CREATE] * CREATES))), rounds, aim=6,
    )  # fmt: skip
    yield many
    yield by_itself(many, f"createToken, {CONNECTIONS} clients", aim=8000)
    yield Row(f"commits for {SESSIONS:,} sessions by {CONNECTIONS}", "", figure(commits[1:]), aim=150)
    yield compare(
        "createToken, one client, p50", "µs", create, "Redis SET EX, synced",
        lambda: others.redis.one_by_one([redis_set() for _ in range(CREATES)]), rounds,
    )  # fmt: skip
    yield compare(
        f"createToken, {CLIENTS} clients", RATE,
        lambda: agent.many_clients([CREATE] * SESSIONS, CLIENTS), f"Redis SET EX, synced, {CLIENTS} clients",
        lambda: others.redis.many_clients([redis_set() for _ in range(SESSIONS)], CLIENTS), rounds,
    )  # fmt: skip


def last_transaction(home: Home) -> int:
    """The number of the last commit to the store of a running agent; reads a meta page and locks nothing."""
    with lmdb.open(str(home.state / "store"), readonly=True, lock=False, create=False) as environment:
        return int(environment.info()["last_txnid"])


def create_in_parts(agent: Server, echo: Server, in_process: Worker, rounds: int) -> Iterator[Row]:
    """One createToken from the first byte out to the last byte in, and what each part of it has of that.

    The parts of each round add up to its whole. What is in process is of another process than the agent, which
    does nothing else: `timed/manager_calls.py` says how it is told apart.
    """
    parts: dict[str, list[Sample]] = {}

    def note(name: str, value: float, processor: float | None = None) -> None:
        parts.setdefault(name, []).append(Sample(value, processor))

    name = "createToken, in parts"
    for counts in (False, *[True] * rounds):
        whole, echoed = agent.one_by_one([CREATE] * CREATES), echo.one_by_one([CREATE] * CREATES)
        try:
            told = in_process.ask("create", CREATES)
        except AbsentError as reason:
            yield missing(name, "µs", str(reason))
            return
        if not counts:
            continue
        manager = {of: seconds * MICROSECONDS for of, seconds in told.items()}
        note("the whole", *whole)
        note("echo of the request", *echoed)
        note("the server, beyond the echo", whole.value - echoed.value - manager["value"])
        note("the operation, on the event loop", manager["operation"], manager["operation"])
        note("the commit, in its thread", manager["commit"])
        note("waking and waiting", manager["value"] - manager["operation"] - manager["commit"])
        note("(the manager alone, in process)", manager["value"], manager["processor"])
    for part, samples in parts.items():
        yield alone(f"{name}: {part}", "µs", samples)


def through_clients(client: Worker, others: Neighbours, rounds: int) -> Iterator[Row]:
    """A call through agentd's own Python client, beside the same through that of others."""

    def verify() -> Sample:
        return client.microseconds("verify", CALLS)

    def create() -> Sample:
        return client.microseconds("create", CREATES)

    yield compare(
        "Client.verify_token, p50", "µs", verify,
        "the request as ready-made bytes", lambda: client.microseconds("bytes", CALLS), rounds, aim=1.25,
    )  # fmt: skip
    for backend in ("trio", "asyncio"):
        yield compare(
            f"AsyncClient.verify_token, {backend}, p50", "µs",
            partial(client.microseconds, f"verify under {backend}", CALLS),
            "the request as ready-made bytes", lambda: client.microseconds("bytes", CALLS), rounds,
        )  # fmt: skip
    yield compare(
        "Client.verify_token, p50", "µs", verify,
        "redis-py GET", lambda: others.redis_py.microseconds("get", CALLS), rounds, aim=0.95,
    )  # fmt: skip
    yield compare(
        "Client.verify_token, p50", "µs", verify, "PyJWT decode, HS256, in process",
        lambda: others.in_process.microseconds("jwt decode", CALLS), rounds,
    )  # fmt: skip
    yield compare(
        "Client.create_token, p50", "µs", create, "redis-py SET EX, synced",
        lambda: others.redis_py.microseconds("set", CREATES), rounds, aim=1.3,
    )  # fmt: skip
    yield compare(
        "Client.create_token, p50", "µs", create, "SQLite insert, WAL, synced, in process",
        lambda: others.in_process.microseconds("sqlite insert", CREATES), rounds,
    )  # fmt: skip
    yield compare(
        f"Client.create_token, {CLIENTS} threads", RATE,
        lambda: client.rate("create in threads", CREATES * 8), f"redis-py SET EX, synced, {CLIENTS} threads",
        lambda: others.redis_py.rate("set in threads", CREATES * 8), rounds, aim=1.0,
    )  # fmt: skip


def token_file(files: Worker, rounds: int) -> Iterator[Row]:
    """The token file, beside the same file operations without a rule around them."""
    for what, beside, count in (
        ("write", "write, fsync, rename, fsync", 100),
        ("read", "open, read, close", 2000),
    ):
        yield compare(
            f"token file, {what}, p50", "µs", partial(files.microseconds, what, count),
            beside, partial(files.microseconds, f"{what} raw", count), rounds,
        )  # fmt: skip


def starting(subject: Subject, home: Home, rounds: int) -> Iterator[Row]:
    """What somebody waits for at a prompt. The agent of `home` must not be running."""

    def python(code: str) -> Callable[[], Sample]:
        return lambda: run(subject.python, "-P", "-c", code)

    yield compare(
        "agent, start to ready", "ms", lambda: subject.start_to_ready(home),
        "python -c 'import trio'", python("import trio"), rounds * 2, aim=1.6,
    )  # fmt: skip
    with subject.serving(home):
        run(subject.agentctl, "login", environ=home.environ)
        yield compare(
            "agentctl verify", "ms", lambda: run(subject.agentctl, "verify", environ=home.environ),
            "python -c 'import click'", python("import click"), rounds * 3, aim=1.25,
        )  # fmt: skip
    # The package loads its names when they are used, so importing it alone says little.
    for code in ("import agentd_client", "from agentd_client import Client"):
        yield compare(code, "ms", python(code), "python -c ''", python(""), rounds * 3, aim=2.0)


def idle_memory(agent: Server) -> Row:
    """MiB that nobody else shares: Private_Clean and Private_Dirty of /proc/PID/smaps_rollup (proc(5))."""
    name = "idle private memory"
    try:
        rollup = Path(f"/proc/{agent.pid}/smaps_rollup").read_text()
    except PermissionError:
        return missing(name, "MiB", "only root may see it, as the agent is not dumpable")
    private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
    return Row(name, "MiB", Figure(*[private / 1024] * 3), aim=40)
