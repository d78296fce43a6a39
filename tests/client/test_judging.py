"""`judge_token`: what a token is good for, the same from both sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentd_client import ProtocolError, SessionInfo, Verdict, Verification
from agentd_client.protocol.methods import to_wire
from tests.client.flavours import run
from tests.client.scripted import Peer, ScriptedAgent

SESSION = SessionInfo("id", "label", 1.0, None, None, audience=["web"], scopes=["read"])
LONE = Verification(True, None, None)


class Answers:
    """A script that gives one answer, a map, to whatever is asked."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    def __call__(self, peer: Peer) -> None:
        while True:
            request = peer.receive()
            peer.send(peer._encoder.result(request.msgid, self.answer))


async def judges(agent: Any) -> Any:
    return await agent.judge_token("good", audience="web", scopes=["read"])


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (to_wire(Verdict(True, None, ["web"], ["read"])), Verdict(True, None, ["web"], ["read"])),
        (to_wire(Verdict(True, None, None, None)), Verdict(True, None, None, None)),
        (to_wire(Verdict(False, "EXPIRED", None, None)), Verdict(False, "EXPIRED", None, None)),
        (to_wire(Verification(True, None, SESSION)), Verdict(True, None, ["web"], ["read"])),
        (to_wire(Verification(False, "EXPIRED", SESSION)), Verdict(False, "EXPIRED", None, None)),
        (to_wire(LONE), Verdict(True, None, None, None)),
    ],
)
def test_the_answer_of_either_door_is_read_alike(
    path: Path, flavour: str, answer: dict[str, Any], verdict: Verdict
) -> None:
    with ScriptedAgent(path, Answers(answer)) as agent:
        assert run(flavour, path, judges) == verdict
    asked = agent.seen[0]
    assert (asked.method, asked.params) == (
        "verifyToken",
        {"token": "good", "audience": "web", "scopes": ["read"]},
    )


@pytest.mark.parametrize(("valid", "expected"), [(True, True), (False, False)])
def test_verify_and_check_take_the_verify_sockets_answer_too(
    path: Path, flavour: str, valid: bool, expected: bool
) -> None:
    reason = None if valid else "REVOKED"

    async def verifies(agent: Any) -> None:
        assert await agent.verify_token("good") is expected
        assert await agent.check_token("good") == Verification(valid, reason, None)

    with ScriptedAgent(path, Answers(to_wire(Verdict(valid, reason, None, None)))):
        run(flavour, path, verifies)


@pytest.mark.parametrize("token", [None, 5, b"\xff", "two tokens", "x" * 8193, ""])
def test_what_cannot_be_a_token_is_judged_here(path: Path, flavour: str, token: object) -> None:
    async def judges_it(agent: Any) -> Any:
        return await agent.judge_token(token)

    with ScriptedAgent(path) as agent:
        assert run(flavour, path, judges_it) == Verdict(False, "MALFORMED", None, None)
    assert agent.seen == []


@pytest.mark.parametrize(
    "answer", [{}, {"valid": 1, "reason": None}, {"valid": True, "reason": None, "scopes": "read"}]
)
def test_an_answer_of_another_form_is_none(path: Path, flavour: str, answer: dict[str, Any]) -> None:
    with ScriptedAgent(path, Answers(answer)), pytest.raises(ProtocolError):
        run(flavour, path, judges)
