from __future__ import annotations

import logging
import sys

import msgpack
import pytest
import trio

from agentd.server import Caller, dispatch
from agentd.server.dispatch import Dispatch, Params
from agentd_client.errors import AgentLockedError, StoreFullError
from agentd_client.protocol.codec import Request
from agentd_client.protocol.methods import Method
from agentd_client.protocol.results import CachedVerification, KeyReset, Revocation
from tests.server.talk import LOGGER, FakeCaller

CALLER = FakeCaller()
SECRET = "v4.local." + "s3cret" * 20
INTERNAL = [0, "INTERNAL: the agent failed for a reason of its own; its log has the details"]


class NumberParams(Params, frozen=True):
    how_many: int
    text: str | None = None


def table(handler) -> Dispatch:
    table = Dispatch(LOGGER)
    table.register(Method("atOnce", True), NumberParams, handler)

    async def waiting(params, caller):
        await trio.lowlevel.checkpoint()
        return handler(params, caller)

    table.register_async(Method("waiting", True), NumberParams, waiting)
    return table


async def both(table: Dispatch, params: list[object]) -> list[object]:
    """The answer, which is the same whether the method waits or not, with [error, result]."""
    at_once = table.answer(Request(1, "atOnce", params), CALLER)
    assert table.answer(Request(1, "waiting", params), CALLER) is None
    waiting = await table.answer_async(Request(1, "waiting", params), CALLER)
    found = msgpack.unpackb(at_once)
    assert str(found).replace("atOnce", "waiting") == str(msgpack.unpackb(waiting))
    assert found[:2] == [1, 1]
    return found[2:]


def counted(params: NumberParams, caller: Caller) -> KeyReset:
    return KeyReset(f"{params.how_many} {params.text} {caller.peer.pid}")


async def test_parameters_reach_the_handler_with_the_caller():
    assert await both(table(counted), [{"howMany": 3, "text": "x"}]) == [None, {"keyId": "3 x 42"}]


async def test_nil_is_the_same_as_leaving_out():
    assert await both(table(counted), [{"howMany": 3, "text": None}]) == [None, {"keyId": "3 None 42"}]


@pytest.mark.parametrize("params", [[], [[]], [{}]])
async def test_no_params_are_an_empty_map(params):
    assert await both(table(counted), params) == [
        [1, "INVALID_PARAMS: atOnce: Object missing required field `howMany`"],
        None,
    ]
    empty = Dispatch(LOGGER)
    empty.register(Method("empty", True), Params, lambda params, caller: Revocation(True))
    assert msgpack.unpackb(empty.answer(Request(1, "empty", params), CALLER))[2:] == [None, {"revoked": True}]


@pytest.mark.parametrize("params", [[None], [1], ["text"], [[1]], [{}, {}], [[], []], [b""], [False]])
async def test_params_of_another_form_are_refused(params):
    error, _ = await both(table(counted), params)
    assert error == [1, "INVALID_PARAMS: atOnce: params is an array that holds one map"]


@pytest.mark.parametrize("value", [True, 1.0, "1", None, b"1", [1], {}])
async def test_a_parameter_of_another_type_is_named_and_its_value_is_not(value):
    error, _ = await both(table(counted), [{"howMany": value}])
    assert error[0] == 1
    assert "howMany" in error[1]


async def test_the_refusal_of_a_type_does_not_quote_the_value():
    error, _ = await both(table(counted), [{"howMany": SECRET}])
    assert SECRET not in error[1]


@pytest.mark.parametrize("name", ["how_many", "howmany", "other", "a-b.c:d/e_9", "x" * 64])
async def test_an_unknown_parameter_is_refused_by_name(name):
    error, _ = await both(table(counted), [{"howMany": 1, name: 1}])
    assert error == [1, f"INVALID_PARAMS: atOnce: no parameter '{name}'"]


@pytest.mark.parametrize("name", ["", "x" * 65, SECRET, "new\nline", "\x1b[31m", "été", "two words", "a'b"])
async def test_an_unknown_parameter_whose_name_is_not_fit_to_show_is_counted(name):
    error, _ = await both(table(counted), [{"howMany": 1, name: 1}])
    assert error == [1, f"INVALID_PARAMS: atOnce: no parameter of that name ({len(name)} characters)"]


@pytest.mark.parametrize("name", ["frob", "atonce", "at_once", "__class__", "names", ""])
async def test_an_unknown_method_is_refused_by_name(name):
    found = msgpack.unpackb(table(counted).answer(Request(9, name, []), CALLER))
    shown = f"'{name}'" if name else "of that name (0 characters)"
    assert found == [1, 9, [1, f"UNKNOWN_METHOD: no method {shown}"], None]


def test_a_name_that_is_registered_twice_fails_at_once():
    known = table(counted)
    for register in (known.register, known.register_async):
        for name in ("atOnce", "waiting"):
            with pytest.raises(ValueError, match=name):
                register(Method(name, True), Params, counted)
    assert known.names == ["atOnce", "waiting"]


@pytest.mark.parametrize("error", [AgentLockedError(), StoreFullError("no room: free some")])
async def test_an_error_of_the_tree_is_told_with_its_code(error, log):
    def handler(params, caller):
        raise error

    assert await both(table(handler), [{"howMany": 1}]) == [
        [error.number, f"{error.code}: {error.sentence}"],
        None,
    ]
    assert log.records == []


@pytest.mark.parametrize("text", ["\ud800", "x" * 70_000])
async def test_an_error_that_cannot_be_sent_becomes_an_internal_one(text, log):
    def handler(params, caller):
        raise AgentLockedError(text)

    assert (await both(table(handler), [{"howMany": 1}]))[0] == INTERNAL
    assert len(log.records) == 2


@pytest.mark.parametrize("result", [KeyReset(object()), KeyReset("x" * 70_000), None, ("no", "fields")])
async def test_a_result_that_cannot_be_sent_becomes_an_internal_error(result, log):
    found = await both(table(lambda params, caller: result), [{"howMany": 1}])
    assert found == [INTERNAL, None]
    assert len(log.records) == 2


async def test_any_other_exception_is_an_internal_error_whose_place_is_logged_and_whose_text_is_not(log):
    def handler(params, caller):
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            try:
                raise OSError(28, SECRET) from error
            except OSError:
                raise ExceptionGroup(SECRET, [ValueError(SECRET), RuntimeError(SECRET)])  # noqa: B904

    assert (await both(table(handler), [{"howMany": 1}]))[0] == INTERNAL
    assert SECRET not in log.text
    for told in ("atOnce failed", "KeyError", "OSError errno 28", "ValueError", "RuntimeError", "in handler"):
        assert told in log.text
    assert all(record.levelno == logging.ERROR for record in log.records)


async def test_a_context_that_was_set_aside_is_not_logged(log):
    def handler(params, caller):
        try:
            raise KeyError(SECRET)
        except KeyError:
            raise ValueError(SECRET) from None

    await both(table(handler), [{"howMany": 1}])
    assert "KeyError" not in log.text


async def test_exceptions_that_go_in_circles_are_logged_once(log):
    def handler(params, caller):
        one, other = ValueError(), TypeError()
        one.__cause__, other.__cause__ = other, one
        raise one

    await both(table(handler), [{"howMany": 1}])
    assert log.text.count("builtins.ValueError") == 2  # one per call


def now_and_then() -> Dispatch:
    """A method that answers 1 at once, waits for 2, and fails at 3."""
    given = KeyReset("at once")

    def at_once(params: NumberParams, caller: Caller) -> KeyReset | None:
        return given if params.how_many == 1 else None

    async def waiting(params: NumberParams, caller: Caller) -> KeyReset:
        await trio.lowlevel.checkpoint()
        if params.how_many == 3:
            raise StoreFullError("no room")
        return KeyReset(f"waited {params.how_many} {caller.peer.pid}")

    known = Dispatch(LOGGER)
    known.register(Method("nowAndThen", True), NumberParams, at_once, fallback=waiting)
    return known


async def test_a_method_may_wait_for_some_requests_and_answer_others_at_once(log):
    known = now_and_then()

    async def ask(how_many: object) -> list[object]:
        request = Request(1, "nowAndThen", [{"howMany": how_many}])
        reply = known.answer(request, CALLER)
        assert (reply is None) == (how_many in (2, 3))
        return msgpack.unpackb(reply or await known.answer_async(request, CALLER))[2:]

    for _ in range(2):
        assert await ask(1) == [None, {"keyId": "at once"}]
        assert await ask(2) == [None, {"keyId": "waited 2 42"}]
    assert await ask(3) == [[0, "STORE_FULL: no room"], None]
    assert (await ask("2"))[1] is None, "refused at once"
    assert (known.traffic.requests, known.traffic.refusals) == (6, 2)
    assert log.records == []


async def test_a_cancellation_passes():
    async def for_ever(params, caller):
        await trio.sleep_forever()

    waiting = Dispatch(LOGGER)
    waiting.register_async(Method("waiting", True), Params, for_ever)
    with trio.move_on_after(0) as scope:
        await waiting.answer_async(Request(1, "waiting", []), CALLER)
    assert scope.cancelled_caught


def test_a_cached_verification_is_encoded_once(monkeypatch):
    encoded = []
    to_wire = dispatch.to_wire
    monkeypatch.setattr(dispatch, "to_wire", lambda result: encoded.append(result) or to_wire(result))
    result = CachedVerification(False, "EXPIRED", None)
    known = table(lambda params, caller: result)
    request = Request(7, "atOnce", [{"howMany": 1}])
    for msgid in (7, 7, 70_000):
        assert known.answer(request._replace(msgid=msgid), CALLER) == msgpack.packb(
            [1, msgid, None, {"valid": False, "reason": "EXPIRED", "session": None}]
        )
    assert encoded == [result]
    known.answer(request, CALLER)
    assert encoded == [result]


def test_no_result_is_kept():
    """The agent may be locked: nothing of its sessions stays in memory."""
    result = CachedVerification(False, "EXPIRED", None)
    before = sys.getrefcount(result)
    known = table(lambda params, caller: result)
    known.answer(Request(1, "atOnce", [{"howMany": 1}]), CALLER)
    del known
    assert sys.getrefcount(result) == before
