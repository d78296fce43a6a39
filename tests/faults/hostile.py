"""Twenty hostile peers beside one that means well: how long does that one wait, and does a lock get through?

`python -m tests.faults.hostile [SECONDS] [KIND …]` prints how the good peer fared, beside a calm run of the same
length; 60 seconds and all kinds where nothing is said. Each kind is a process of its own. The hostile processes
run at a lower priority, so that what is measured is the agent and not how the kernel shares two processors.

`python -m tests.faults.hostile --peer KIND SOCKET STALE-TOKEN` is one hostile peer, which goes on until it is
killed.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgpack

from agentd_client import AgentdError, Client
from tests.e2e.daemon import Daemon, Home, scratch_home
from tests.e2e.locked import PASSPHRASE, protect

SESSIONS = 300
LONG_LABEL = "a" * 200
WATCHDOG_SECONDS = 20.0
"""As in agentd/units/agentd.service."""

PAUSE_SECONDS = 0.01
"""Of the good client, between one round and the next."""

NICENESS = 10

Attack = Callable[[str, str], None]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__.replace("_", "-")] = function
    return function


def message(method: str, **params: object) -> bytes:
    return bytes(msgpack.packb([0, next(_msgids), method, [params]]))


_msgids = itertools.count(1)


def connect(path: str) -> socket.socket:
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(30)
            sock.connect(path)
        except OSError:
            sock.close()
            time.sleep(0.01)
        else:
            return sock


def flood(path: str, connections: int, make: Callable[[], bytes], requests: int = 64) -> None:
    """On each connection, send a bunch of requests, take whatever comes, and send the next as soon as it can."""
    poll, socks = select.poll(), {}

    def open_one() -> None:
        sock = connect(path)
        sock.setblocking(False)
        socks[sock.fileno()] = (sock, bytearray())
        poll.register(sock, select.POLLIN | select.POLLOUT)

    for _ in range(connections):
        open_one()
    while True:
        for fd, events in poll.poll():
            sock, waiting = socks[fd]
            try:
                if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and not sock.recv(1 << 20):
                    raise ConnectionResetError
                if events & select.POLLOUT:
                    if not waiting:
                        waiting += b"".join(make() for _ in range(requests))
                    del waiting[: sock.send(waiting)]
            except BlockingIOError:
                pass
            except OSError:
                poll.unregister(fd)
                del socks[fd]
                sock.close()
                open_one()


def hold(path: str, connections: int, first: bytes, again: bytes = b"", every: float = 1.0) -> None:
    """Open connections, send something on each, never read, and come back where one is closed."""
    socks = [connect(path) for _ in range(connections)]
    for sock in socks:
        with suppress(OSError):
            sock.sendall(first)
    while True:
        time.sleep(every)
        for number, sock in enumerate(socks):
            try:
                sock.sendall(again) if again else sock.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
            except BlockingIOError:
                continue
            except OSError:
                sock.close()
                socks[number] = connect(path)
                with suppress(OSError):
                    socks[number].sendall(first)


@attack
def pattern(path: str, token: str) -> None:
    """A pattern that matches almost, on every label: 40 connections with 64 requests each."""
    flood(path, 40, lambda: message("listSessions", label="*" + "a" * 100 + "b"))


@attack
def ever_new_patterns(path: str, token: str) -> None:
    """Patterns that no cache has seen."""
    flood(path, 8, lambda: message("listSessions", label=f"*{next(_msgids)}" + "*a" * 50))


@attack
def revoke_by_pattern(path: str, token: str) -> None:
    flood(path, 16, lambda: message("revokeSessions", label="*" + "a" * 100 + "b"))


@attack
def audit(path: str, token: str) -> None:
    """The whole audit log, filtered so that nothing fits."""
    flood(path, 16, lambda: message("listAudit", since=time.time() + 300))


@attack
def dribble(path: str, token: str) -> None:
    """Notifications that are finished at the last moment, the next one begun at once: never idle."""
    notification = bytes(msgpack.packb([2, "", []]))
    hold(path, 256, notification[:1], notification[1:] + notification[:1], every=5.0)


@attack
def half_messages(path: str, token: str) -> None:
    hold(path, 64, b"\x94\x00\x01\xdb\x00\x00\xff\xff")


@attack
def malformed(path: str, token: str) -> None:
    flood(path, 8, lambda: b"\xc1", requests=1)


@attack
def never_reading(path: str, token: str) -> None:
    hold(path, 32, message("verifyToken", token=token) * 400, every=0.5)


@attack
def create(path: str, token: str) -> None:
    """Sessions that end at once, so that the store does not grow without bound."""
    flood(path, 8, lambda: message("createToken", expiry=1, label=LONG_LABEL))


@attack
def create_and_revoke(path: str, token: str) -> None:
    client = Client.connect(path, timeout=60)
    while True:
        with suppress(AgentdError):
            client.revoke_token(client.create_token(expiry=60).token)


@attack
def renew(path: str, token: str) -> None:
    client = Client.connect(path, timeout=60)
    newest = None
    while True:
        # The first one, too, may have to wait until the agent locks, and be refused then.
        with suppress(AgentdError):
            created = client.create_token(expiry=3600) if newest is None else client.renew_token(newest)
            newest = created.token


@attack
def superseded(path: str, token: str) -> None:
    """A token whose successor was seen, over and over."""
    flood(path, 4, lambda: message("verifyToken", token=token))


@attack
def forged(path: str, token: str) -> None:
    """Tokens of the right form that were never made: each has to be opened."""
    flood(path, 4, lambda: message("verifyToken", token=f"{token[:40]}{next(_msgids):012d}{token[52:]}"))


@attack
def wrong_passphrases(path: str, token: str) -> None:
    flood(path, 4, lambda: message("changePassphrase", old=b"wrong", new=b"new"), requests=4)


@attack
def subscribe_and_never_read(path: str, token: str) -> None:
    hold(path, 32, message("subscribe"))


@attack
def subscribe_and_read(path: str, token: str) -> None:
    flood(path, 32, lambda: message("subscribe"), requests=1)


@attack
def connect_and_close(path: str, token: str) -> None:
    while True:
        connect(path).close()


@attack
def tiny_notifications(path: str, token: str) -> None:
    """The most messages that fit into a read."""
    notification = bytes(msgpack.packb([2, "", []]))
    flood(path, 8, lambda: notification, requests=4096)


@attack
def cheap_requests(path: str, token: str) -> None:
    flood(path, 8, lambda: message("getStatus"), requests=1024)


@attack
def large_parameters(path: str, token: str) -> None:
    """As many values as a message may hold, and strings as long."""
    flood(path, 8, lambda: message("verifyToken", token=token, scopes=["x" * 900] * 64), requests=4)


class Figures(NamedTuple):
    """How one kind of call went: seconds, sorted, and what failed."""

    seconds: list[float]
    failures: list[str]

    def at(self, share: float) -> float:
        return self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))]

    def row(self) -> str:
        if not self.seconds:
            return f"{'-':>9}{'-':>9}{'-':>9}{0:>8}{len(self.failures):>7}"
        of = (self.at(0.5), self.at(0.99), self.seconds[-1])
        times = "".join(f"{1000 * each:9.2f}" for each in of)
        return f"{times}{len(self.seconds):>8}{len(self.failures):>7}"


class Outcome(NamedTuple):
    """What the good client met, and the agent's health."""

    calls: dict[str, Figures]
    lock_seconds: float
    lock_failure: str | None
    longest_silence: float
    is_alive: bool


class Watchdog:
    """A service manager's ear: how long the agent did not say that its loop goes round."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._heard: list[float] = []
        self.environ = {
            "NOTIFY_SOCKET": str(path),
            # Asked for more often than the unit does, to see more; it is held against the unit's.
            "WATCHDOG_USEC": "1500000",
        }
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            if b"WATCHDOG=1" in self._sock.recv(4096):
                self._heard.append(time.monotonic())

    def longest_silence(self, since: float, until: float) -> float:
        heard = [since, *(each for each in self._heard if since < each < until), until]
        return max(later - earlier for earlier, later in itertools.pairwise(heard))


@contextmanager
def hostile_peers(home: Home, kinds: list[str], token: str) -> Iterator[None]:
    peers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.hostile", "--peer", kind, str(home.socket), token],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for kind in kinds
    ]
    try:
        yield
        if dead := [kind for kind, peer in zip(kinds, peers, strict=True) if peer.poll() is not None]:
            raise RuntimeError(f"hostile peers that ended by themselves: {', '.join(dead)}")
    finally:
        for peer in peers:
            peer.kill()
        for peer in peers:
            peer.wait()


def be_good(home: Home, seconds: float, timeout: float) -> dict[str, Figures]:
    """What a program does with an agent, again and again, half of it on a connection of its own."""
    calls: dict[str, Figures] = {}
    path = str(home.socket)

    def timed(name: str, call: Callable[[], object]) -> None:
        figures = calls.setdefault(name, Figures([], []))
        began = time.perf_counter()
        try:
            if call() is False:
                raise AssertionError("it said no")
        except (AgentdError, OSError, AssertionError) as error:
            figures.failures.append(f"{type(error).__name__}: {error}")
        else:
            figures.seconds.append(time.perf_counter() - began)

    def connect_and_hello() -> object:
        with Client.connect(path, timeout=timeout) as other:
            return other.hello()

    until = time.monotonic() + seconds
    with Client.connect(path, timeout=timeout) as agent:
        token = agent.create_token(expiry=3600, label="good").token
        while time.monotonic() < until:
            timed("hello", agent.hello)
            timed("connect, hello", connect_and_hello)
            timed("verifyToken", lambda: agent.verify_token(token))
            timed("getStatus", agent.get_status)
            timed("listSessions", lambda: agent.list_sessions(limit=1))
            timed("create, revoke", lambda: agent.revoke_token(agent.create_token(expiry=60).token))
            time.sleep(PAUSE_SECONDS)
    for figures in calls.values():
        figures.seconds.sort()
    return calls


def prepare(daemon: Daemon) -> str:
    """Fill the store; a token that was superseded."""
    with daemon.client() as agent:
        agent.unlock(PASSPHRASE)
        for _ in range(SESSIONS):
            agent.create_token(expiry=36_000, label=LONG_LABEL)
        first = agent.create_token(expiry=36_000).token
        agent.verify_token(agent.renew_token(first).token)
        return first


def run(kinds: list[str], seconds: float, *, settle_seconds: float = 1.0, timeout: float = 60.0) -> Outcome:
    """The good client beside these kinds of hostile peers, and a lock at the end of it."""
    with ExitStack() as stack:
        home = stack.enter_context(scratch_home())
        protect(home)
        watchdog = Watchdog(home.path / "notify")
        daemon = home.start(environ=watchdog.environ).ready()
        try:
            token = prepare(daemon)
            began = time.monotonic()
            with hostile_peers(home, kinds, token):
                time.sleep(settle_seconds)
                calls = be_good(home, seconds, timeout)
                lock_failure, asked = None, time.perf_counter()
                try:
                    with daemon.client(timeout) as agent:
                        agent.lock()
                except AgentdError as error:
                    lock_failure = f"{type(error).__name__}: {error}"
                lock_seconds = time.perf_counter() - asked
            silence = watchdog.longest_silence(began, time.monotonic())
            return Outcome(calls, lock_seconds, lock_failure, silence, daemon.process.poll() is None)
        finally:
            daemon.process.kill()
            daemon.process.wait()


def report(name: str, outcome: Outcome) -> None:
    print(f"\n{name:20}{'p50 ms':>9}{'p99 ms':>9}{'worst ms':>9}{'calls':>8}{'failed':>7}")
    for call, figures in outcome.calls.items():
        print(f"  {call:18}{figures.row()}")
        for failure in sorted(set(figures.failures))[:3]:
            print(f"    {failure}")
    lock = outcome.lock_failure or f"{1000 * outcome.lock_seconds:.0f} ms"
    fired = "would have fired" if outcome.longest_silence > WATCHDOG_SECONDS else "would not have fired"
    print(f"  lock: {lock}")
    print(f"  watchdog of {WATCHDOG_SECONDS:g} s: {fired}; longest silence {outcome.longest_silence:.2f} s")
    print(f"  the agent {'lives' if outcome.is_alive else 'HAS ENDED'}", flush=True)


def main(arguments: list[str]) -> int:
    seconds = float(arguments.pop(0)) if arguments and arguments[0][0].isdigit() else 60.0
    kinds = arguments or list(ATTACKS)
    if unknown := [kind for kind in kinds if kind not in ATTACKS]:
        print(f"no such kind: {', '.join(unknown)}; there are {', '.join(ATTACKS)}")
        return 64
    report("calm", run([], seconds))
    outcome = run(kinds, seconds)
    report(f"{len(kinds)} hostile peers", outcome)
    failures = sum(len(figures.failures) for figures in outcome.calls.values())
    return 0 if outcome.is_alive and not failures and outcome.lock_failure is None else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        os.nice(NICENESS)
        ATTACKS[sys.argv[2]](*sys.argv[3:5])
    sys.exit(main(sys.argv[1:]))
