from __future__ import annotations

import msgpack
import pytest

from agentd.server import Peer
from agentd_client import errors
from agentd_client.protocol import calls, methods
from agentd_client.protocol.codec import Request
from agentd_client.protocol.results import (
    CreatedToken,
    Hello,
    KeyReset,
    Opener,
    Revocation,
    Verification,
)
from agentd_client.protocol.wire import error_from_wire, from_wire, to_wire
from tests.server.talk import STATUS, VALID, dispatch_of

PEER = Peer(1000, 100, 42)


@pytest.fixture
def ask(sessions):
    dispatch = dispatch_of(sessions)

    async def ask(name: str, *params: object, **named: object) -> object:
        """The result; raises the refusal as the error that it is."""
        request = Request(1, name, [*params] if params else [named])
        reply = dispatch.answer(request, PEER)
        if reply is None:
            reply = await dispatch.answer_waiting(request, PEER)
        _, _, error, result = msgpack.unpackb(reply)
        if error is not None:
            assert result is None
            raise error_from_wire(error)
        return result

    return ask


ALL = {value.name for value in vars(methods).values() if isinstance(value, methods.Method)}


async def test_hello_tells_the_agents_version_the_protocols_and_every_method(ask):
    found = from_wire(Hello, await ask("hello", client="test 1", protocol=1))
    assert (found.server, found.protocol) == ("agentd 1.2", 1)
    assert set(found.capabilities) == ALL


@pytest.mark.parametrize("protocol", [0, 2, -1, 2**63, None])
async def test_hello_tells_its_own_protocol_to_whoever_speaks_another(ask, protocol):
    assert (await ask("hello", protocol=protocol))["protocol"] == 1


@pytest.mark.parametrize("params", [{"client": 1}, {"protocol": "1"}, {"protocol": True}, {"version": 1}])
async def test_hello_refuses_parameters_of_another_type_or_name(ask, params):
    with pytest.raises(errors.InvalidParamsError, match=next(iter(params))):
        await ask("hello", **params)


async def test_get_status_tells_the_status(ask):
    assert calls.get_status().read(await ask("getStatus")) == STATUS


@pytest.mark.parametrize("method", ["getStatus", "resetKey"])
async def test_a_method_without_parameters_refuses_any(ask, sessions, method):
    with pytest.raises(errors.InvalidParamsError, match="no parameter 'force'"):
        await ask(method, force=True)
    assert sessions.asked == []


@pytest.mark.parametrize("method", ["verifyToken", "inspectToken"])
async def test_a_valid_token_is_described(ask, method):
    assert await ask(method, token="good") == to_wire(VALID)


@pytest.mark.parametrize("method", ["verifyToken", "inspectToken"])
@pytest.mark.parametrize("token", ["bad", "", 1, True, 1.5, b"good", ["good"], {"token": "good"}, None])
async def test_a_token_of_whatever_type_is_answered_not_refused(ask, method, token):
    assert from_wire(Verification, await ask(method, token=token)) == (False, "MALFORMED", None)


@pytest.mark.parametrize("method", ["verifyToken", "inspectToken"])
async def test_a_missing_token_is_refused_by_name(ask, method):
    with pytest.raises(errors.InvalidParamsError, match="token"):
        await ask(method)


async def test_create_token_hands_on_what_it_was_given_and_the_peer(ask, sessions):
    created = from_wire(CreatedToken, await ask("createToken", expiry=60, label="label"))
    assert created == ("token of label", "id", None)
    assert sessions.asked == [("open", 60, "label", Opener(1000, 42))]


@pytest.mark.parametrize("given", [{}, {"expiry": None}, {"label": None}, {"expiry": None, "label": None}])
async def test_create_token_takes_nil_as_absent(ask, sessions, given):
    await ask("createToken", **given)
    assert sessions.asked == [("open", None, None, Opener(1000, 42))]


@pytest.mark.parametrize("value", ["never", -1, 1.5, True, "text", b"bytes", [1], {"a": 1}])
async def test_create_token_leaves_it_to_the_sessions_to_refuse_values(ask, sessions, value):
    await ask("createToken", expiry=value, label=value if isinstance(value, str) else 5)
    assert sessions.asked[0][1] == value


async def test_revoke_token_takes_a_token_or_an_id(ask, sessions):
    assert from_wire(Revocation, await ask("revokeToken", token="good")) == (True,)
    await ask("revokeToken", id="some", token=None)
    assert sessions.asked == [("revoke", "good", None), ("revoke", None, "some")]


@pytest.mark.parametrize(
    "params", [{}, {"token": None}, {"token": None, "id": None}, {"token": "a", "id": "b"}]
)
async def test_revoke_token_refuses_both_and_none(ask, sessions, params):
    with pytest.raises(errors.InvalidParamsError, match="either token or id"):
        await ask("revokeToken", **params)
    assert sessions.asked == []


@pytest.mark.parametrize("params", [{"token": 1}, {"token": b"good"}, {"id": 1}, {"id": ["a"]}])
async def test_revoke_token_refuses_what_is_no_text_by_name(ask, sessions, params):
    with pytest.raises(errors.InvalidParamsError, match=next(iter(params))):
        await ask("revokeToken", **params)
    assert sessions.asked == []


async def test_reset_key_answers_the_new_keys_id(ask, sessions):
    assert from_wire(KeyReset, await ask("resetKey", [])) == ("key",)
    assert sessions.asked == [("reset",)]
