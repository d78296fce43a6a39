from __future__ import annotations

import inspect
import threading
from pathlib import Path
from typing import Any

import pytest

import agentd_client
from agentd_client import Client, CreatedToken, aio
from agentd_client.aio import AsyncClient, AsyncEvents, AsyncSession
from agentd_client.errors import (
    AgentTimeoutError,
    ClientClosedError,
    InvalidExpiryError,
    InvalidLabelError,
    InvalidParamsError,
    InvalidTokenError,
    LocalParamsError,
    ProtocolError,
    RequestError,
)
from agentd_client.transport import repeating
from agentd_client.transport.connection import MAX_CONNECTIONS
from agentd_client.transport.events import Events
from tests.client.flavours import run
from tests.client.scripted import STATUS, Peer, ScriptedAgent


def test_every_method_asks_what_its_name_says(path: Path, flavour: str) -> None:
    async def scenario(agent: Any) -> None:
        assert (await agent.hello()).server == "scripted"
        assert await agent.get_status() == STATUS
        assert await agent.create_token(1800, "work") == CreatedToken("good-1", "s-1", 1800.0)
        assert await agent.verify_token("good-1") is True
        assert await agent.verify_token("bad") is False
        assert (await agent.check_token("bad")).reason == "MALFORMED"
        assert (await agent.inspect_token("good-2")).session.id == "good-2"
        assert await agent.revoke_token("good-1") is True
        assert await agent.revoke_token(id="s-1") is True
        assert await agent.reset_key() == "key-2"

    with ScriptedAgent(path) as agent:
        run(flavour, path, scenario)
    assert [(seen.method, seen.params) for seen in agent.seen] == [
        ("hello", {"client": f"agentd-client {agentd_client.__version__}", "protocol": 1}),
        ("getStatus", {}),
        ("createToken", {"expiry": 1800, "label": "work"}),
        ("verifyToken", {"token": "good-1"}),
        ("verifyToken", {"token": "bad"}),
        ("verifyToken", {"token": "bad"}),
        ("inspectToken", {"token": "good-2"}),
        ("revokeToken", {"token": "good-1"}),
        ("revokeToken", {"id": "s-1"}),
        ("resetKey", {}),
    ]
    assert agent.connections == 1, "calls in sequence share one connection"


def test_a_call_with_which_nothing_goes_wrong_takes_no_steps(
    path: Path, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(agent: Any) -> None:
        for module in (aio, repeating):
            monkeypatch.setattr(module, "carry_out", None)
        assert await agent.verify_token("good")
        assert await agent.create_token() == CreatedToken("good-1", "s-1", 1800.0)

    with ScriptedAgent(path) as agent:
        run(flavour, path, scenario)
    assert agent.connections == 1


class _Liar(str):
    __slots__ = ()

    def __len__(self) -> int:
        raise RuntimeError

    def __str__(self) -> str:
        raise RuntimeError


class _NoClass:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError


UNSENDABLE: list[object] = [
    None, 1, 1.5, True, b"good", [], {}, object(), str, "", " ", "good token", "good\n", "\0", "gööd", "\ud800",
    "g" * 8193, _NoClass(), _Liar("good token"),
]  # fmt: skip


def test_verify_token_is_false_for_anything_whatever_and_sends_only_what_could_be_a_token(
    path: Path, flavour: str
) -> None:
    async def scenario(agent: Any) -> None:
        for token in UNSENDABLE:
            assert await agent.verify_token(token) is False
            assert (await agent.check_token(token)).reason == "MALFORMED"
        assert await agent.verify_token(_Liar("good")) is True, "a str subclass is its text"

    with ScriptedAgent(path) as agent:
        run(flavour, path, scenario)
    assert agent.methods() == ["verifyToken"]


def test_what_cannot_be_a_token_is_refused_where_an_error_is_wanted(path: Path, flavour: str) -> None:
    async def scenario(agent: Any) -> None:
        with pytest.raises(InvalidTokenError):
            await agent.inspect_token("a b")
        with pytest.raises(InvalidTokenError):
            await agent.revoke_token("a b")
        with pytest.raises(InvalidParamsError):
            await agent.revoke_token()
        with pytest.raises(InvalidParamsError):
            await agent.revoke_token("good", id="s-1")

    with ScriptedAgent(path) as agent:
        run(flavour, path, scenario)
    assert not agent.seen


def test_a_parameter_that_cannot_be_sent_is_refused_and_the_client_goes_on(path: Path, flavour: str) -> None:
    async def scenario(agent: Any) -> None:
        for expiry, reason in ((object(), "type"), (2**70, "too large"), ("\udcff", "UTF-8")):
            with pytest.raises(InvalidExpiryError, match=f"the expiry cannot be sent: .*{reason}"):
                await agent.create_token(expiry)
        with pytest.raises(InvalidLabelError, match="the label cannot be sent: it is too long"):
            await agent.create_token(label="x" * 70_000)
        with pytest.raises(InvalidLabelError, match="the label cannot be sent: it is not text") as refused:
            await agent.create_token(label="secret \udcff")
        assert "secret" not in str(refused.value)
        assert refused.value.__context__ is None, "the packer's own error quotes the value"
        with pytest.raises(LocalParamsError, match="the id cannot be sent: it is not text"):
            await agent.revoke_token(id="\udcff")
        with pytest.raises(LocalParamsError, match="createToken: the parameters are too long together"):
            await agent.create_token("x" * 40_000, "x" * 40_000)
        assert await agent.verify_token("good")

    with ScriptedAgent(path) as agent:
        run(flavour, path, scenario)
    assert agent.methods() == ["verifyToken"]


def test_a_refusal_is_the_agents_own_error_and_keeps_the_connection(path: Path, flavour: str) -> None:
    def refuses(peer: Peer) -> None:
        peer.refuse(peer.receive(), [InvalidExpiryError.number, "INVALID_EXPIRY: too long"])
        peer.refuse(peer.receive(), [9999, "NEWER: of a newer agent"])
        peer.refuse(peer.receive(), [84, "PROTOCOL: said by the agent"])
        peer.answer(peer.receive())

    async def scenario(agent: Any) -> None:
        with pytest.raises(InvalidExpiryError, match="too long"):
            await agent.create_token(10**12)
        with pytest.raises(RequestError, match="NEWER"):
            await agent.create_token()
        with pytest.raises(ProtocolError, match="said by the agent"):
            await agent.create_token()
        assert await agent.verify_token("good")

    with ScriptedAgent(path, refuses) as agent:
        run(flavour, path, scenario)
    assert agent.connections == 1


def test_an_answer_in_many_pieces_is_put_together(path: Path, flavour: str) -> None:
    def splits(peer: Peer) -> None:
        for byte in peer.answer_bytes(peer.receive()):
            peer.send(bytes([byte]))

    async def scenario(agent: Any) -> None:
        assert (await agent.inspect_token("good-7")).session.id == "good-7"

    with ScriptedAgent(path, splits):
        run(flavour, path, scenario)


def test_a_large_request_is_sent_in_the_pieces_that_the_peer_takes(
    path: Path, flavour: str, small_send_buffer: None
) -> None:
    async def scenario(agent: Any) -> None:
        await agent.create_token(label="x" * 60_000)

    with ScriptedAgent(path) as agent:
        run(flavour, path, scenario)
    assert len(agent.seen[0].params["label"]) == 60_000


def test_a_closed_client_refuses_calls(path: Path, flavour: str) -> None:
    async def scenario(agent: Any) -> None:
        await agent.close()
        await agent.close()
        with pytest.raises(ClientClosedError):
            await agent.hello()

    with ScriptedAgent(path, Peer.wait_until_gone):
        run(flavour, path, scenario)


def test_a_call_under_way_ends_well_when_another_thread_closes_the_client(path: Path) -> None:
    received, closed = threading.Event(), threading.Event()

    def late(peer: Peer) -> None:
        request = peer.receive()
        received.set()
        assert closed.wait(60)
        peer.answer(request)
        peer.wait_until_gone()  # not kept: the client is closed

    results: list[bool] = []
    with ScriptedAgent(path, late):
        client = Client.connect(path, timeout=60)
        thread = threading.Thread(target=lambda: results.append(client.verify_token("good")))
        thread.start()
        assert received.wait(60)
        client.close()
        closed.set()
        thread.join()
    assert results == [True]


def test_a_call_waits_for_a_connection_no_longer_than_its_timeout(path: Path, flavour: str) -> None:
    async def scenario(agent: Any) -> None:
        pool = getattr(agent, "client", agent)._pools.here()
        in_use = [pool.take() for _ in range(MAX_CONNECTIONS)]
        agent.timeout = 0
        try:
            with pytest.raises(AgentTimeoutError, match=f"{MAX_CONNECTIONS} calls of this client were under"):
                await agent.verify_token("good")
        finally:
            for connection in in_use:
                pool.give_back(connection)
        agent.timeout = 60
        assert await agent.verify_token("good")

    with ScriptedAgent(path):
        run(flavour, path, scenario)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 86_401, None, "5"])
def test_a_timeout_is_a_number_of_seconds_up_to_a_day(path: Path, flavour: str, seconds: Any) -> None:
    async def scenario(agent: Any) -> None:
        raise AssertionError

    with ScriptedAgent(path) as agent:
        with pytest.raises(InvalidParamsError, match="timeout is a number of seconds"):
            run(flavour, path, scenario, timeout=seconds)
        if seconds is not None:
            with pytest.raises(InvalidParamsError, match="patience is a number of seconds"):
                run(flavour, path, scenario, patience=seconds)
    assert agent.connections == 0


def test_the_socket_path_is_the_users_own_by_default_and_absolute(
    path: Path, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def its_path(agent: Any) -> str:
        return str(agent.socket_path)

    with ScriptedAgent(path):
        monkeypatch.setenv("AGENTD_SOCKET", str(path))
        assert run(flavour, None, its_path) == str(path)
        monkeypatch.chdir(path.parent)
        assert run(flavour, path.name, its_path) == str(path)


def _surface(kind: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in inspect.getmembers(kind):
        if name.startswith("_"):
            continue
        found[name] = (
            "property" if isinstance(value, property) else str(inspect.signature(value)).replace("Async", "")
        )
    return found


@pytest.mark.parametrize(
    ("blocking", "twin"),
    [(Client, AsyncClient), (agentd_client.Session, AsyncSession), (Events, AsyncEvents)],
)
def test_the_async_twin_has_the_same_methods_with_the_same_signatures(blocking: type, twin: type) -> None:
    assert _surface(blocking) == _surface(twin)
