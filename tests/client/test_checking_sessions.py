"""Using a session: its token is verified, and renewed where that is due; nothing about renewing fails a use."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentd_client import Client, Session
from agentd_client.aio import AsyncClient, AsyncSession
from agentd_client.errors import AgentUnreachableError, InvalidScopesError, TokenFileError
from agentd_client.protocol.codec import Request
from agentd_client.token_file import TokenFile, renewal
from agentd_client.token_file.folder import TokenFolder
from tests.client.flavours import BACKENDS, in_flavour, run
from tests.client.renewing import DUE, LIFETIME, RenewingAgent
from tests.client.scripted import PATIENCE_SECONDS, Peer, ScriptedAgent


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session.create_session(tmp_path / "token", session_token="good-0")


def uses(
    flavour: str, agent: RenewingAgent, session: Session, times: list[float], **options: Any
) -> Callable[[Any], Any]:
    """A scenario: the session is used at each of these times, and is valid every time."""
    used = in_flavour(flavour, session)

    async def scenario(client: Any) -> None:
        for now in times:
            agent.now = now
            assert (await client.check_session(used, clock=agent.clock, **options)).valid

    return scenario


def _hold(session: Session) -> int:
    descriptor = os.open(f"{session.path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def test_a_session_that_is_due_is_renewed_and_its_new_token_written(
    path: Path, flavour: str, session: Session
) -> None:
    with RenewingAgent(path) as agent:
        run(flavour, path, uses(flavour, agent, session, [1000, 1599, 1601, 1602, 2200, 2202]))
    assert [(seen.method, seen.params["token"]) for seen in agent.seen] == [
        ("verifyToken", "good-0"),
        ("verifyToken", "good-0"),
        ("verifyToken", "good-0"),
        ("renewToken", "good-0"),
        ("verifyToken", "good-1"),
        ("verifyToken", "good-1"),
        ("verifyToken", "good-1"),
        ("renewToken", "good-1"),
    ]
    assert session.read_token() == "good-2"
    os.close(_hold(session))  # the lock was let go


def test_what_the_session_has_to_be_good_for_is_asked_every_time(
    path: Path, flavour: str, session: Session
) -> None:
    with RenewingAgent(path) as agent:
        needs = {"audience": "editor", "scopes": ["read"]}
        run(flavour, path, uses(flavour, agent, session, [1000, 1601, 1602], **needs))
    assert [seen.params for seen in agent.seen] == [
        {"token": "good-0", **needs},
        {"token": "good-0", **needs},
        {"token": "good-0"},
        {"token": "good-1", **needs},
    ]


def test_the_clock_is_the_systems_own_unless_another_is_given(
    path: Path, flavour: str, session: Session
) -> None:
    used = in_flavour(flavour, session)

    async def scenario(client: Any) -> None:
        assert (await client.check_session(used)).valid

    with RenewingAgent(path) as agent:
        run(flavour, path, scenario)
    assert agent.methods() == ["verifyToken", "renewToken"], "the session's end was in 1970"


def test_without_a_token_there_is_nothing_to_ask(path: Path, flavour: str, session: Session) -> None:
    session.stop()
    session.destroy()
    used = in_flavour(flavour, session)

    async def scenario(client: Any) -> None:
        assert await client.check_session(used) == (False, "NOT_LOGGED_IN", None)

    with ScriptedAgent(path) as agent:
        run(flavour, path, scenario)
    assert not agent.seen
    assert not os.path.exists(session.path)


def test_what_keeps_the_answer_from_being_known_is_an_error(
    path: Path, flavour: str, session: Session
) -> None:
    used = in_flavour(flavour, session)

    async def scenario(client: Any) -> None:
        with pytest.raises(InvalidScopesError):
            await client.check_session(used, scopes="read")
        os.chmod(session.path, 0o644)
        with pytest.raises(TokenFileError):
            await client.check_session(used)
        os.chmod(session.path, 0o600)
        agent.vanish()
        client.timeout = 0
        with pytest.raises(AgentUnreachableError):
            await client.check_session(used)

    def goes(peer: Peer) -> None:
        peer.wait_until_gone()

    with ScriptedAgent(path, goes) as agent:
        # The connection of the beginning is given up, and there is no agent for another.
        async def main(client: Any) -> None:
            found = getattr(client, "client", client)._pools.here()
            found._drop_idle()
            await scenario(client)

        run(flavour, path, main)


def test_a_session_whose_lock_another_holds_is_not_renewed_and_nobody_waits(
    path: Path, flavour: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = _hold(session)
    flock = fcntl.flock

    def never_waits(descriptor: int, operation: int) -> None:
        assert operation != fcntl.LOCK_EX, "waited for the lock"
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", never_waits)
    with RenewingAgent(path) as agent:
        run(flavour, path, uses(flavour, agent, session, [1601]))
        assert agent.renewals() == 0
        os.close(held)
        # Not a failure: there is no pause before the next attempt.
        run(flavour, path, uses(flavour, agent, session, [1601]))
        assert agent.renewals() == 1
    assert session.read_token() == "good-1"


def test_a_session_that_another_renewed_since_its_file_was_read_is_not_renewed(
    path: Path, flavour: str, session: Session
) -> None:
    def another_renews(token: str) -> None:
        if token == "good-0":
            # The agent still says yes to the old one, and what it says is that the session is due.
            TokenFile(session.path).write("good-1")

    with RenewingAgent(path, on_verify=another_renews) as agent:
        run(flavour, path, uses(flavour, agent, session, [1601]))
    assert agent.methods() == ["verifyToken"]
    assert session.read_token() == "good-1"


def test_a_token_superseded_since_its_file_was_read_is_not_the_answer(
    path: Path, flavour: str, session: Session
) -> None:
    def another_renews(token: str) -> None:
        if token == "good-0":
            agent.generation = 5
            TokenFile(session.path).write("good-5")

    with RenewingAgent(path, on_verify=another_renews) as agent:
        run(flavour, path, uses(flavour, agent, session, [1601]))
    assert [(seen.method, seen.params["token"]) for seen in agent.seen] == [
        ("verifyToken", "good-0"),
        ("verifyToken", "good-5"),
        ("renewToken", "good-5"),
    ]
    assert session.read_token() == "good-6"


@pytest.mark.parametrize("afterwards", ["good-0", "good-1", None])
def test_a_token_that_is_not_valid_is_said_and_asked_for_once_more_at_most(
    path: Path, flavour: str, session: Session, afterwards: str | None
) -> None:
    used = in_flavour(flavour, session)

    def another_writes(_: str) -> None:
        if afterwards is None:
            TokenFile(session.path).remove()
        else:
            TokenFile(session.path).write(afterwards)

    async def scenario(client: Any) -> None:
        assert await client.check_session(used, clock=agent.clock) == (False, "SUPERSEDED", None)

    with RenewingAgent(path, on_verify=another_writes) as agent:
        agent.generation = 7
        agent.now = 1000 + DUE + 1
        run(flavour, path, scenario)
    assert agent.methods() == ["verifyToken"] * (2 if afterwards == "good-1" else 1)


def loses_the_answer(peer: Peer, request: Request) -> None:
    peer.socket.shutdown(socket.SHUT_RDWR)


def refuses(peer: Peer, request: Request) -> None:
    peer.refuse(request, [1, "TOKEN_NOT_VALID: superseded"])


def answers_nonsense(peer: Peer, request: Request) -> None:
    peer.send(b"HTTP/1.1 400 Bad Request\r\n")
    peer.wait_until_gone()


def stays_silent(peer: Peer, request: Request) -> None:
    peer.wait_until_gone()


@pytest.mark.parametrize("again", [1639, 1600.5])
@pytest.mark.parametrize(
    ("fails", "seconds"),
    [
        (loses_the_answer, 0),
        (stays_silent, 0),
        (refuses, PATIENCE_SECONDS),
        (answers_nonsense, PATIENCE_SECONDS),
    ],
)
def test_a_renewal_that_fails_is_no_failure_of_the_use(
    path: Path,
    flavour: str,
    session: Session,
    fails: Callable[[Peer, Request], None],
    seconds: float,
    again: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = threading.Event()

    def on_renew(peer: Peer, request: Request) -> None:
        asked.set()
        fails(peer, request)

    with RenewingAgent(path, on_renew=on_renew) as agent:
        monkeypatch.setattr(renewal, "ANSWER_SECONDS", seconds)
        run(flavour, path, uses(flavour, agent, session, [1601]))
        assert asked.wait(PATIENCE_SECONDS)
        assert session.read_token() == "good-0"
        os.close(_hold(session))
        # Not at every use, but again before the end; and a clock that was set back is no reason not to.
        run(flavour, path, uses(flavour, agent, session, [1602, 1637]))
        assert agent.renewals() == 1
        agent.on_renew = None
        monkeypatch.setattr(renewal, "ANSWER_SECONDS", PATIENCE_SECONDS)
        run(flavour, path, uses(flavour, agent, session, [again]))
        assert agent.renewals() == 2
    assert session.read_token() == "good-1"


def test_an_answer_of_renewing_that_was_lost_is_asked_for_again(
    path: Path, flavour: str, session: Session
) -> None:
    lost: list[str] = []

    def loses_the_first(peer: Peer, request: Request) -> None:
        token = request.params[0]["token"]
        created = agent.renew(token)
        if not lost:
            lost.append(created.token)
            loses_the_answer(peer, request)
        else:
            # While the new generation is unseen, renewing the old one gives it again.
            peer.answer_with(request, created._replace(token=lost[0]))

    with RenewingAgent(path, on_renew=loses_the_first) as agent:
        run(flavour, path, uses(flavour, agent, session, [1601]))
    assert agent.renewals() == 2
    assert session.read_token() == "good-1"


def test_a_file_that_cannot_be_written_is_no_failure_and_keeps_its_token(
    path: Path, flavour: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = TokenFolder.open

    def no_room(folder: TokenFolder, name: str, flags: int, mode: int = 0) -> int:
        if name.endswith(".new"):
            raise OSError(28, "No space left on device")
        return opened(folder, name, flags, mode)

    monkeypatch.setattr(TokenFolder, "open", no_room)
    with RenewingAgent(path) as agent:
        run(flavour, path, uses(flavour, agent, session, [1601]))
    assert agent.renewals() == 1
    assert session.read_token() == "good-0"
    os.close(_hold(session))


def test_a_folder_that_cannot_be_locked_in_is_no_failure_and_the_agent_is_not_bothered(
    path: Path, flavour: str, session: Session
) -> None:
    os.remove(f"{session.path}.lock")
    os.mkdir(f"{session.path}.lock")
    with RenewingAgent(path) as agent:
        run(flavour, path, uses(flavour, agent, session, [1601]))
    assert agent.methods() == ["verifyToken"]


def test_a_session_destroyed_while_it_is_renewed_leaves_no_token_behind(
    path: Path, flavour: str, session: Session
) -> None:
    session.stop()
    destroying = threading.Thread(target=session.destroy)

    def destroyed_meanwhile(peer: Peer, request: Request) -> None:
        destroying.start()
        peer.answer_with(request, agent.renew(request.params[0]["token"]))

    with RenewingAgent(path, on_renew=destroyed_meanwhile) as agent:
        run(flavour, path, uses(flavour, agent, session, [1601]))
    destroying.join(PATIENCE_SECONDS)
    assert not os.path.exists(session.path)


def test_a_renewal_that_is_interrupted_lets_go_of_the_lock(path: Path, session: Session) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def interrupts(peer: Peer, request: Request) -> None:
        with pytest.raises(BlockingIOError):
            _hold(session)
        signal.pthread_kill(main, signal.SIGINT)
        peer.wait_until_gone()

    with RenewingAgent(path, on_renew=interrupts) as agent, Client.connect(path, timeout=60) as client:
        agent.now = 1601
        # The traceback keeps every frame alive: the lock is let go on purpose, not by the collector.
        with pytest.raises(KeyboardInterrupt) as caught:
            client.check_session(session, clock=agent.clock)
        os.close(_hold(session))
        assert caught.tb is not None
    assert session.read_token() == "good-0"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_renewal_that_is_cancelled_lets_go_of_the_lock(path: Path, session: Session, backend: str) -> None:
    asked = threading.Event()

    def silent(peer: Peer, request: Request) -> None:
        with pytest.raises(BlockingIOError):
            _hold(session)
        asked.set()
        peer.wait_until_gone()

    async def main() -> None:
        async with await AsyncClient.connect(path, timeout=60) as client, anyio.create_task_group() as tasks:

            async def check() -> None:
                await client.check_session(AsyncSession(session), clock=agent.clock)
                raise AssertionError("answered")

            tasks.start_soon(check)
            await anyio.to_thread.run_sync(asked.wait, PATIENCE_SECONDS)
            tasks.cancel_scope.cancel()
        os.close(_hold(session))

    with RenewingAgent(path, on_renew=silent) as agent:
        agent.now = 1601
        anyio.run(main, backend=backend)
    assert session.read_token() == "good-0"


THREADS, PERIODS = 50, 3


def test_fifty_threads_that_share_a_file_renew_it_once_a_period(path: Path, session: Session) -> None:
    begin, end = threading.Barrier(THREADS + 1), threading.Barrier(THREADS + 1)

    def program(client: Client) -> None:
        own = Session(session.path)
        for _ in range(PERIODS):
            begin.wait(PATIENCE_SECONDS)
            for _ in range(4):
                assert client.check_session(own, clock=agent.clock).valid
            end.wait(PATIENCE_SECONDS)

    with (
        RenewingAgent(path) as agent,
        Client.connect(path, timeout=60) as one,
        Client.connect(path, timeout=60) as other,
        ThreadPoolExecutor(THREADS) as threads,
    ):
        running = [threads.submit(program, (one, other)[number % 2]) for number in range(THREADS)]
        for period in range(1, PERIODS + 1):
            agent.now += LIFETIME * 0.7
            begin.wait(PATIENCE_SECONDS)
            end.wait(PATIENCE_SECONDS)
            assert agent.renewals() == period
            assert session.read_token() == f"good-{period}"
        for done in running:
            done.result()
