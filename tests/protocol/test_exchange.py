"""What a client reads out of the bytes of one connection; most of it is tested through the clients."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from agentd_client.errors import AgentStoppingError, ProtocolError
from agentd_client.protocol import exchange
from agentd_client.protocol.codec import Decoder, Encoder
from agentd_client.protocol.exchange import Exchange
from agentd_client.protocol.methods import error_to_wire, to_wire
from agentd_client.protocol.results import SessionInfo, Verification
from tests.calls import calls

VALID = to_wire(Verification(True, None, SessionInfo("s-1", "", 1.0, None, None, scopes=["read"])))
NOT_VALID = to_wire(Verification(False, "EXPIRED", None))
ASKED = calls.verify_token("token")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was decoded and not known."""
    found: list[bytes] = []
    receive = Decoder.receive

    def receive_watched(self: Decoder, data: bytes) -> Any:
        found.append(data)
        return receive(self, data)

    monkeypatch.setattr(Decoder, "receive", receive_watched)
    return found


def answer(to: Exchange, result: Any) -> bytes:
    return Encoder().result(to._msgid, result)


def asked() -> Exchange:
    found = Exchange()
    found.request(ASKED)
    return found


def result(of: Exchange, data: bytes, call: Any = ASKED) -> Any:
    found = of.receive(data, call)
    assert found is not None
    return found.unwrap()


def test_a_verdict_that_came_before_is_not_decoded_again(decoded: list[bytes]) -> None:
    one = Exchange()
    for _ in range(300):
        one.request(ASKED)
        assert result(one, answer(one, VALID)) is True
        one.request(ASKED)
        assert result(one, answer(one, NOT_VALID)) is False
    assert len(decoded) == 2


def test_what_differs_in_a_byte_from_a_verdict_that_came_before_is_decoded(decoded: list[bytes]) -> None:
    one = asked()
    whole = answer(one, VALID)
    assert result(one, whole) is True
    for place in range(len(whole)):
        other = asked()
        assert result(other, answer(other, VALID)) is True
        before = len(decoded)
        with suppress(ProtocolError):
            other.receive(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], ASKED)
        assert len(decoded) == before + 1


def test_an_answer_to_another_call_is_passed_over_though_its_verdict_is_known() -> None:
    one = asked()
    late = answer(one, VALID)
    assert result(one, late) is True
    one.request(ASKED)
    assert one.receive(late, ASKED) is None
    assert result(one, answer(one, NOT_VALID)) is False


def test_a_verdict_is_kept_only_where_it_came_alone_and_whole(decoded: list[bytes]) -> None:
    one = asked()
    whole = answer(one, VALID)
    assert one.receive(whole[:9], ASKED) is None
    assert result(one, whole[9:]) is True
    one.request(ASKED)
    assert result(one, answer(one, VALID)) is True
    assert len(decoded) == 3, "it came in two pieces before"
    begun = b"\x93\x02\xa1x\xc4" + bytes([len(whole)])  # a message that goes on with as many bytes
    for _ in range(2):
        before = len(decoded)
        one.request(ASKED)
        assert result(one, answer(one, VALID) + begun) is True
        one.request(ASKED)
        assert one.receive(answer(one, VALID), ASKED) is None, "the rest of that message, and no answer"
        assert len(decoded) == before + 2
        assert result(one, answer(one, VALID)) is True, "the answer, which is known"
        assert len(decoded) == before + 2
    for _ in range(2):
        before = len(decoded)
        one.request(ASKED)
        assert result(one, answer(one, VALID) + b"\x93\x02\xa1x\x90") is True, "with another message"
        assert len(decoded) == before + 1


def test_another_question_about_a_token_is_read_by_itself(decoded: list[bytes]) -> None:
    one = asked()
    assert result(one, answer(one, VALID)) is True
    call = calls.check_token("token")
    one.request(call)
    first = result(one, answer(one, VALID), call)
    one.request(call)
    second = result(one, answer(one, VALID), call)
    assert first == second
    assert first.session.scopes is not second.session.scopes, "a list is its caller's own"
    assert len(decoded) == 3


def test_a_malformed_verdict_and_a_refusal_are_not_kept(decoded: list[bytes]) -> None:
    one = Exchange()
    wrong = {**VALID, "session": {**VALID["session"], "createdAt": "then"}}
    for _ in range(2):
        one.request(ASKED)
        with pytest.raises(ProtocolError, match="createdAt"):
            one.receive(answer(one, wrong), ASKED)
        one.request(ASKED)
        with pytest.raises(AgentStoppingError):
            result(one, Encoder().error(one._msgid, error_to_wire(AgentStoppingError())))
    assert len(decoded) == 4


def test_how_many_verdicts_are_kept_is_bounded(decoded: list[bytes]) -> None:
    one = Exchange()
    for number in range(3 * exchange._MAX_VERDICTS):
        one.request(ASKED)
        assert result(one, answer(one, {**VALID, "reason": f"R{number}"})) is True
        assert len(one._verdicts) <= exchange._MAX_VERDICTS
    assert len(decoded) == 3 * exchange._MAX_VERDICTS
