"""Today's client understands what agents of earlier versions answer, and today's agent what their clients ask."""

from __future__ import annotations

import msgpack
import pytest

from agentd.methods import verify_dispatch
from agentd_client import errors
from agentd_client.protocol import methods
from agentd_client.protocol.codec import Decoder, Notification, Request
from agentd_client.protocol.methods import error_from_wire, to_wire
from tests.calls import calls
from tests.compatibility.recordings import CALLS, RECORDING, Exchange
from tests.server.talk import LOGGER, FakeAgent, FakeCaller, FakeSessions, dispatch_of

ANSWERED = [exchange for exchange in RECORDING.exchanges if exchange.error is None]
REFUSED = [exchange for exchange in RECORDING.exchanges if exchange.error is not None]
VERIFY_ONLY = [exchange for exchange in RECORDING.verify_only if exchange.error is None]


def case(exchange: Exchange) -> str:
    return exchange.case


def missing_from(earlier: object, today: object, where: str = "") -> list[str]:
    """What an earlier answer says and today's does not, by its name."""
    match earlier, today:
        case dict(), dict():
            gone = [f"{where}.{name}" for name in earlier if name not in today]
            both = [name for name in earlier if name in today]
            return gone + [
                each for name in both for each in missing_from(earlier[name], today[name], f"{where}.{name}")
            ]
        case [first, *_], [other, *_]:
            return missing_from(first, other, f"{where}[]")
    return []


def test_every_method_of_that_version_was_recorded():
    hello = next(exchange for exchange in ANSWERED if exchange.method == "hello")
    assert {exchange.method for exchange in ANSWERED} == set(CALLS) == {*hello.result["capabilities"]}


@pytest.mark.parametrize("exchange", ANSWERED, ids=case)
def test_the_client_reads_an_earlier_answer_field_by_field(exchange):
    read = CALLS[exchange.method].method.read(exchange.result)
    if isinstance(read, tuple):
        said = to_wire(read)
        assert missing_from(exchange.result, said) == []
        assert {name: said[name] for name in exchange.result if not isinstance(said[name], dict | list)} == {
            name: value for name, value in exchange.result.items() if not isinstance(value, dict | list)
        }
    else:  # a method with one field in its answer gives that
        assert [read] == [*exchange.result.values()]


@pytest.mark.parametrize("exchange", VERIFY_ONLY, ids=case)
def test_the_client_reads_the_answers_of_an_earlier_verify_only_socket(exchange):
    call = calls.judge_token("v4.local.AAAA") if exchange.method == "verifyToken" else CALLS[exchange.method]
    assert to_wire(call.method.read(exchange.result)).items() >= exchange.result.items()


@pytest.mark.parametrize("exchange", REFUSED, ids=case)
def test_an_earlier_refusal_is_the_error_that_was_meant(exchange):
    number, text = exchange.error
    found = error_from_wire(exchange.error)
    assert (found.number, f"{found.code}: {found.sentence}") == (number, text)


def test_no_code_of_an_error_was_dropped_or_given_another_number():
    today = {code: kind.number for code, kind in errors.ERRORS.items()}
    assert today.items() >= RECORDING.error_codes.items()


def test_earlier_events_are_read():
    events = Decoder().receive(RECORDING.events)
    assert {event.method for event in events if isinstance(event, Notification)} == {methods.EVENT}
    kinds = [methods.read_event(event.params).kind for event in events]
    assert len(kinds) == len(events)
    assert {"created", "renewed", "revoked", "refused", "keyReset", "locked", "unlocked", "stopping"} <= {
        *kinds
    }


async def answer(dispatch, exchange: Exchange) -> list[object]:
    (request,) = Decoder().receive(exchange.request)
    assert isinstance(request, Request)
    caller = FakeCaller()
    found = dispatch.answer(request, caller) or await dispatch.answer_async(request, caller)
    return msgpack.unpackb(found)[2:]


@pytest.mark.parametrize("exchange", ANSWERED, ids=case)
async def test_the_agent_answers_an_earlier_clients_request_with_every_field_that_it_knew(exchange):
    error, result = await answer(dispatch_of(FakeSessions()), exchange)
    if error is not None:  # the stand-in knows one passphrase
        assert (exchange.method, error[1].partition(":")[0]) == ("unlock", "PASSPHRASE")
        return
    assert missing_from(exchange.result, result) == []


@pytest.mark.parametrize("exchange", VERIFY_ONLY, ids=case)
async def test_the_verify_only_socket_answers_with_every_field_that_was_known(exchange):
    dispatch = verify_dispatch(FakeAgent(FakeSessions()), version="1.2", logger=LOGGER)
    error, result = await answer(dispatch, exchange)
    assert error is None
    assert missing_from(exchange.result, result) == []
