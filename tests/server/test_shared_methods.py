"""The tables of the sockets for others: what they answer, and how little that is."""

from __future__ import annotations

import logging

import msgpack
import pytest

from agentd.methods import ask_dispatch, verify_dispatch
from agentd_client import errors
from agentd_client.protocol import reasons
from agentd_client.protocol.codec import Request
from agentd_client.protocol.results import PeerIdentity, SessionInfo, Verification
from tests.operations import AT_SHARED_SOCKETS, EVERY
from tests.server.talk import LOGGER, FakeAgent, FakeCaller, FakeSessions

PRIVATE = SessionInfo(
    "the id", "a label", 1.5, 2.5, PeerIdentity(1000, 7, "/bin/sh", "a.scope"),
    audience=["web", "mail"], scopes=["read"], uses_left=3, parent="another id", bound_pid=8,
)  # fmt: skip
DISPATCHES = {"verify": verify_dispatch, "ask": ask_dispatch}


class Sessions(FakeSessions):
    """Answers what the test says, where it says anything."""

    answer: Verification | Exception | None = None

    def verify_nowait(self, token, *, audience=None, scopes=None, by=None):
        found = super().verify_nowait(token, audience=audience, scopes=scopes, by=by)
        if isinstance(self.answer, Exception):
            raise self.answer
        return found if self.answer is None or found is None else self.answer


@pytest.fixture(params=DISPATCHES)
def kind(request) -> str:
    return request.param


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


@pytest.fixture
def ask(sessions, kind):
    dispatch = DISPATCHES[kind](FakeAgent(sessions), version="1.2", logger=LOGGER)

    async def ask(name: str, *params: object, **named: object) -> list[object]:
        """The error and the result."""
        request, caller = Request(1, name, [*params] if params else [named]), FakeCaller()
        reply = dispatch.answer(request, caller)
        if reply is None:
            reply = await dispatch.answer_async(request, caller)
        return msgpack.unpackb(reply)[2:]

    return ask


async def test_hello_names_the_methods_that_there_are_and_no_others(ask, kind):
    error, told = await ask("hello", client="test 1", protocol=1)
    assert error is None
    assert set(told.pop("capabilities")) == AT_SHARED_SOCKETS[kind]
    assert told == {"server": "agentd 1.2", "protocol": 1}


async def test_a_valid_token_is_told_with_what_it_is_good_for_and_nothing_of_its_session(ask, sessions):
    sessions.answer = Verification(True, None, PRIVATE)
    assert await ask("verifyToken", token="good") == [
        None,
        {"valid": True, "reason": None, "audience": ["web", "mail"], "scopes": ["read"]},
    ]


async def test_a_session_without_limits_is_told_as_such(ask):
    assert await ask("verifyToken", token="good") == [
        None,
        {"valid": True, "reason": None, "audience": None, "scopes": None},
    ]


@pytest.mark.parametrize("reason", sorted(reasons.SENTENCES))
async def test_of_a_token_that_is_not_valid_only_the_reason_is_told(ask, sessions, reason):
    sessions.answer = Verification(False, reason, PRIVATE)
    assert await ask("verifyToken", token="good") == [
        None,
        {"valid": False, "reason": reason, "audience": None, "scopes": None},
    ]


@pytest.mark.parametrize("token", [None, 5, b"good ", ["good"], {"token": "good"}, ""])
async def test_whatever_is_no_token_is_an_answer(ask, token):
    _, answer = await ask("verifyToken", token=token)
    assert (answer["valid"], answer["reason"]) == (False, "MALFORMED")


async def test_a_token_as_bytes_is_the_token_that_they_spell(ask):
    assert await ask("verifyToken", token=b"good") == await ask("verifyToken", token="good")


async def test_audience_and_scopes_that_are_asked_for_are_handed_on_with_the_peer(ask, sessions):
    await ask("verifyToken", token="good", audience="web", scopes=["read"])
    assert sessions.asked == [("verify", "good", "web", ["read"], PeerIdentity(1000, 42))]


async def test_a_use_that_is_counted_waits_and_tells_the_same(ask, sessions):
    assert await ask("verifyToken", token="counted", audience="web") == [
        None,
        {"valid": True, "reason": None, "audience": None, "scopes": None},
    ]
    assert sessions.asked[1:] == [("count", "counted", "web", None, PeerIdentity(1000, 42))]


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, own in AT_SHARED_SOCKETS.items() for name in sorted(EVERY - own)],
    indirect=["kind"],
)
async def test_every_other_method_is_as_unknown_as_one_that_there_never_was(ask, sessions, name):
    error, result = await ask(name, token="good", id="id")
    assert (error, result) == ([1, f"UNKNOWN_METHOD: no method '{name}'"], None)
    error, _ = await ask("noSuchMethod")
    assert error == [1, "UNKNOWN_METHOD: no method 'noSuchMethod'"]
    assert sessions.asked == []


async def test_bad_parameters_are_refused_by_name(ask):
    assert (await ask("verifyToken", token="good", id="x"))[0] == [
        1,
        "INVALID_PARAMS: verifyToken: no parameter 'id'",
    ]
    error, _ = await ask("verifyToken")
    assert error[1].startswith("INVALID_PARAMS: verifyToken: ")


@pytest.mark.parametrize(
    "error", [errors.AgentLockedError("at 12:00"), errors.DBNotRunningError("the store")]
)
async def test_a_locked_agent_says_that_it_is_locked(ask, sessions, error):
    sessions.answer = error
    error, result = await ask("verifyToken", token="good")
    assert (error, result) == ([0, f"LOCKED: {errors.AgentLockedError().sentence}"], None)


@pytest.mark.parametrize("failure", [errors.StoreDamagedError, errors.StoreError])
async def test_a_failure_is_told_by_its_code_and_without_particulars(ask, sessions, failure):
    sessions.answer = failure("the record sessions/5/the id in /home/me/.local is not what was written")
    error, _ = await ask("verifyToken", token="good")
    assert error == [failure.number, f"{failure.code}: {failure().sentence}"]


async def test_what_is_wrong_with_the_request_keeps_its_sentence(ask, sessions):
    sessions.answer = errors.InvalidScopesError("17 scopes")
    assert (await ask("verifyToken", token="good"))[0] == [1, "INVALID_SCOPES: 17 scopes"]


async def test_a_fault_is_logged_without_the_token_and_told_without_anything(ask, sessions, log):
    sessions.answer = RuntimeError("v4.local.s3cret")
    error, _ = await ask("verifyToken", token="v4.local.s3cret")
    assert error[1].startswith("INTERNAL: ")
    assert [record.levelno for record in log.records] == [logging.ERROR]
    assert "s3cret" not in log.text + error[1]
