from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agentd_client import Client
from agentd_client.errors import (
    AgentTimeoutError,
    AgentUnreachableError,
    ForeignAgentError,
    InvalidParamsError,
)
from agentd_client.transport import connection
from agentd_client.transport.connection import Connection
from tests.client.flavours import run
from tests.client.scripted import PATIENCE_SECONDS, Peer, ScriptedAgent
from tests.other_user import as_user, needs_root


@pytest.fixture(autouse=True)
def no_agent_of_the_users_own(tmp_path, monkeypatch):
    """Errors name the user's own agent if one runs, as `make run` beside the tests."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


async def verifies(agent: Any) -> None:
    assert await agent.verify_token("good")


async def never_connects(agent: Any) -> None:
    raise AssertionError("connected")


@pytest.fixture
def after_first_failure(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], list[str]]:
    """Lets a test act at the moment when connecting has failed once."""

    def arrange(act: Callable[[], object]) -> list[str]:
        opened = Connection.open
        failures: list[str] = []

        def open_watched(path: str, **options: Any) -> Connection:
            try:
                return opened(path, **options)
            except OSError as error:
                failures.append(type(error).__name__)
                if len(failures) == 1:
                    act()
                raise

        monkeypatch.setattr(Connection, "open", open_watched)
        return failures

    return arrange


def test_an_agent_that_is_still_to_make_its_socket_is_waited_for(
    path: Path, flavour: str, after_first_failure: Any
) -> None:
    with ExitStack() as stack:
        failures = after_first_failure(lambda: stack.enter_context(ScriptedAgent(path)))
        run(flavour, path, verifies)
    assert failures == ["FileNotFoundError"]


def test_an_agent_that_is_still_to_listen_is_waited_for(
    path: Path, flavour: str, after_first_failure: Any
) -> None:
    with socket.socket(socket.AF_UNIX) as bound, ExitStack() as stack:
        bound.bind(os.fspath(path))

        def replace() -> None:
            path.unlink()
            stack.enter_context(ScriptedAgent(path))

        failures = after_first_failure(replace)
        run(flavour, path, verifies)
    assert failures == ["ConnectionRefusedError"]


def test_an_agent_whose_queue_is_full_is_waited_for(
    path: Path, flavour: str, after_first_failure: Any
) -> None:
    with _full_queue(path) as full, ExitStack() as stack:

        def replace() -> None:
            full.pop_all().close()
            path.unlink()
            stack.enter_context(ScriptedAgent(path))

        failures = after_first_failure(replace)
        run(flavour, path, verifies)
    assert failures == ["BlockingIOError"]


def test_an_agent_whose_queue_stays_full_is_a_timeout(path: Path, flavour: str) -> None:
    with _full_queue(path), pytest.raises(AgentTimeoutError, match="has taken no connection"):
        run(flavour, path, never_connects, timeout=0)


def _full_queue(path: Path) -> ExitStack:
    stack = ExitStack()
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(os.fspath(path))
    listener.listen(0)
    while True:
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.setblocking(False)
        try:
            waiting.connect(os.fspath(path))
        except BlockingIOError:
            return stack


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": 60, "patience": 0}])
def test_an_absent_agent_is_unreachable_after_the_timeout_or_the_patience(
    path: Path, flavour: str, options: dict[str, float]
) -> None:
    with pytest.raises(AgentUnreachableError, match=r"No such file.*start one with `agentd serve`") as caught:
        run(flavour, path, never_connects, **options)
    assert str(path) in str(caught.value)


def test_an_agent_that_is_gone_by_now_is_no_answer_to_whether_a_token_is_valid(
    path: Path, flavour: str
) -> None:
    with ScriptedAgent(path, lambda peer: peer.answer(peer.receive())) as scripted:

        async def verify_before_and_after(agent: Any) -> None:
            assert await agent.verify_token("good")
            scripted.vanish()
            for ask in (agent.verify_token, agent.check_token, agent.inspect_token):
                with pytest.raises(AgentUnreachableError):
                    await ask("good")

        run(flavour, path, verify_before_and_after, patience=0)


def test_a_path_that_no_agent_can_ever_have_is_not_waited_for(tmp_path: Path, flavour: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgentUnreachableError, match="Not a directory"):
        run(flavour, tmp_path / "file" / "socket", never_connects)


def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path, flavour: str) -> None:
    longest = str(tmp_path) + "/" + "s" * (107 - len(str(tmp_path)) - 1)
    with ScriptedAgent(longest):
        run(flavour, longest, verifies)
    for impossible in (longest + "s", str(tmp_path) + "/\0", str(tmp_path) + "/" + "é" * 60):
        with pytest.raises(AgentUnreachableError, match=r"cannot be a socket.*107 bytes.*AGENTD_SOCKET"):
            run(flavour, impossible, never_connects)


def test_an_agent_of_another_user_is_sent_nothing(
    path: Path, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "peer_uid", lambda _: os.geteuid() + 1)
    with (
        ScriptedAgent(path, Peer.wait_until_gone) as agent,
        pytest.raises(ForeignAgentError, match="nothing was sent"),
    ):
        run(flavour, path, never_connects)
    assert not agent.seen


def test_whose_agent_it_is_can_be_said_and_then_nobody_else_will_do(
    path: Path, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = os.geteuid() + 1
    monkeypatch.setattr(connection, "peer_uid", lambda _: trusted)
    with ScriptedAgent(path):
        run(flavour, path, verifies, agent_uid=trusted)
    monkeypatch.undo()
    with (
        ScriptedAgent(path, Peer.wait_until_gone) as agent,
        pytest.raises(ForeignAgentError, match=f"uid {trusted} is whose agent was asked for; nothing was"),
    ):
        run(flavour, path, never_connects, agent_uid=trusted)
    assert not agent.seen, "not even to an agent of one's own"


def test_events_are_asked_for_at_the_agent_that_was_named_only(
    path: Path, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = os.geteuid() + 1
    uids = iter([trusted, os.geteuid()])
    monkeypatch.setattr(connection, "peer_uid", lambda _: next(uids))

    async def subscribes(agent: Any) -> None:
        with pytest.raises(ForeignAgentError):
            await agent.subscribe()

    with ScriptedAgent(path) as agent:
        run(flavour, path, subscribes, agent_uid=trusted)
    assert agent.methods() == []


@pytest.mark.parametrize("uid", [-1, 2**32 - 1, True, False, 1.0, "1000", "", "root"])
def test_what_is_no_user_id_is_refused_before_anything_is_sent(path: Path, flavour: str, uid: object) -> None:
    with ScriptedAgent(path) as agent, pytest.raises(InvalidParamsError, match="agent_uid is a user id"):
        run(flavour, path, never_connects, agent_uid=uid)
    assert agent.connections == 0


@needs_root
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_the_listeners_uid_is_read_from_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        # The one who calls listen(2) is the peer that SO_PEERCRED shows.
        assert as_user(listener.listen, 65534) is None
        with pytest.raises(ForeignAgentError, match="uid 65534"):
            Client.connect(path, timeout=PATIENCE_SECONDS)
        listener.settimeout(PATIENCE_SECONDS)
        connected, _ = listener.accept()
        with connected:
            assert connected.recv(1) == b""
        with pytest.raises(ForeignAgentError, match="uid 65534 listens .* uid 65533 is whose agent"):
            Client.connect(path, timeout=PATIENCE_SECONDS, agent_uid=65533)
        Client.connect(path, timeout=PATIENCE_SECONDS, agent_uid=65534).close()
