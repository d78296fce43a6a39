"""`lock`, `unlock` and `change_passphrase`: what travels, what is refused here, and what never shows."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from agentd_client import LockState, NoPassphraseError, PassphraseError, Protection
from agentd_client.errors import AgentLockedError, OutcomeUnknownError
from agentd_client.protocol.codec import Decoder
from agentd_client.protocol.exchange import Exchange
from agentd_client.protocol.methods import error_to_wire
from tests.calls import calls
from tests.client.flavours import run
from tests.client.scripted import STATUS, Peer, ScriptedAgent

SECRET = "correct hörse"


def test_each_asks_what_its_name_says(path: Path, flavour: str) -> None:
    async def scenario(agent: Any) -> None:
        assert await agent.lock() == LockState(locked=True)
        assert await agent.unlock(SECRET) == LockState(locked=False)
        assert await agent.change_passphrase(b"old", bytearray(b"new")) == Protection(protected=True)
        assert await agent.change_passphrase(new="n") == Protection(protected=True)
        assert await agent.change_passphrase("o") == Protection(protected=False)

    with ScriptedAgent(path) as agent:
        run(flavour, path, scenario)
    assert [(seen.method, seen.params) for seen in agent.seen] == [
        ("lock", {}),
        ("unlock", {"passphrase": SECRET.encode()}),
        ("changePassphrase", {"old": b"old", "new": b"new"}),
        ("changePassphrase", {"new": b"n"}),
        ("changePassphrase", {"old": b"o"}),
    ]


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (NoPassphraseError, lambda agent: agent.lock()),
        (PassphraseError, lambda agent: agent.unlock("x")),
        (AgentLockedError, lambda agent: agent.change_passphrase(new="x")),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_refusal_is_the_error_that_the_agent_meant(path: Path, flavour: str, error: Any, call: Any) -> None:
    async def scenario(agent: Any) -> None:
        with pytest.raises(error) as refused:
            await call(agent)
        assert type(refused.value) is error

    with ScriptedAgent(path, lambda peer: peer.refuse(peer.receive(), error_to_wire(error()))):
        run(flavour, path, scenario)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "empty"),
        (b"", "empty"),
        ("x" * 1025, "at most 1024 bytes"),
        ("ö" * 513, "at most 1024 bytes"),
        ("sec\0ret", "no NUL byte"),
        ("secret \udcff", "text has to be Unicode"),
        (12, "is text or bytes"),
        (["secret"], "is text or bytes"),
        (None, "is text or bytes"),
    ],
)
def test_what_cannot_be_a_passphrase_is_refused_unsent(
    path: Path, flavour: str, given: Any, reason: str
) -> None:
    async def scenario(agent: Any) -> None:
        attempts = [lambda: agent.unlock(given)]
        if given is not None:
            attempts += [
                lambda: agent.change_passphrase(given, "x"),
                lambda: agent.change_passphrase("x", given),
            ]
        for attempt in attempts:
            with pytest.raises(PassphraseError, match=reason) as refused:
                await attempt()
            assert "sec" not in "".join(traceback.format_exception_only(refused.value))
            assert refused.value.__context__ is None, "an error of encoding holds what it could not encode"

    with ScriptedAgent(path) as agent:
        run(flavour, path, scenario)
    assert not agent.seen


@pytest.mark.parametrize("longest", ["x" * 1024, "é".encode() * 512, bytearray("é".encode() * 512)])
def test_the_longest_passphrases_travel_as_bytes(longest: Any) -> None:
    (request,) = Decoder().receive(Exchange().request(calls.change_passphrase(longest, longest)))
    expected = longest.encode() if isinstance(longest, str) else bytes(longest)
    assert request.params == [{"old": expected, "new": expected}]


@pytest.mark.parametrize("given", [b"caf\xe9", b" ", b"\r\n", b"a\x07", bytearray(b"tab\t")])
def test_what_cannot_be_meant_is_not_sent_as_a_new_passphrase_and_is_as_the_present_one(given: Any) -> None:
    with pytest.raises(PassphraseError):
        calls.change_passphrase(None, given)
    assert calls.change_passphrase(given, "new").params["old"] == given
    assert calls.unlock(given).params["passphrase"] == given


def test_a_bytearray_is_not_copied_before_it_is_sent() -> None:
    given = bytearray(b"wipe me")
    assert calls.unlock(given).params["passphrase"] is given


def test_a_passphrase_shows_in_no_repr() -> None:
    for call in (calls.unlock("hunter2"), calls.change_passphrase("hunter2", "hunter2")):
        assert "hunter2" not in repr(call)
        assert call.method.name in repr(call)


def test_a_lost_answer_is_asked_for_again_only_where_that_is_the_same(path: Path, flavour: str) -> None:
    def loses_the_answer(peer: Peer) -> None:
        peer.receive()

    async def scenario(agent: Any) -> None:
        assert (await agent.unlock("x")).locked is False
        with pytest.raises(OutcomeUnknownError) as unknown:
            await agent.change_passphrase("hunter2", "hunter2")
        assert "hunter2" not in unknown.value.sentence

    def unlocks_and_loses_the_next(peer: Peer) -> None:
        peer.answer(peer.receive())
        peer.receive()

    with ScriptedAgent(path, loses_the_answer, unlocks_and_loses_the_next) as agent:
        run(flavour, path, scenario)
    assert agent.methods() == ["unlock", "unlock", "changePassphrase"]


def test_a_locked_agent_tells_since_when_and_nothing_of_its_store(path: Path, flavour: str) -> None:
    status = STATUS._replace(
        agent_id=None,
        sessions=None,
        key_id=None,
        store_bytes=None,
        locked=True,
        locked_at=5.5,
        lock_reason="idle",
        protected=True,
        wrong_passphrases=2,
    )

    async def scenario(agent: Any) -> None:
        assert await agent.get_status() == status

    with ScriptedAgent(path, lambda peer: peer.answer_with(peer.receive(), status)):
        run(flavour, path, scenario)
