"""What every guarded server answers, as status codes, whatever its framework."""

from __future__ import annotations

import time
from collections.abc import Callable

from agentd.testing import TestAgent

AUDIENCE = "notes"
SCOPE = "read"
"""What the guarded servers of these tests require: ``scopes=[SCOPE], audience=AUDIENCE``."""

EXPECTED = {
    "valid": 200,
    "no token": 401,
    "not a token": 401,
    "expired": 401,
    "missing scope": 403,
    "wrong audience": 401,
    "revoked between two requests": (200, 401),
    "agent locked": 503,
    "agent away": 503,
    "agent back": 200,
}


def statuses(
    agent: TestAgent, request: Callable[[str | None], int], *, is_cached: bool = False
) -> dict[str, int | tuple[int, ...]]:
    """Bring about every situation.

    Args:
        agent: the agent that the server asks.
        request: sends one request with this token, or with none; the status of the answer.
        is_cached: the server has a cache, which learns a moment later that a session has ended.
    """

    def opened(scopes: list[str], audience: str = AUDIENCE, expiry: int = 600) -> str:
        return agent.create_token(expiry, scopes=scopes, audience=[audience]).token

    found: dict[str, int | tuple[int, ...]] = {}
    valid = opened([SCOPE])
    found["valid"] = request(valid)
    found["no token"] = request(None)
    found["not a token"] = request("v4.local.nothing")
    short = opened([SCOPE], expiry=1)
    agent.advance(10)
    found["expired"] = request(short)
    found["missing scope"] = request(opened(["write"]))
    found["wrong audience"] = request(opened([SCOPE], audience="mail"))
    ended = opened([SCOPE])
    before = request(ended)
    agent.client.revoke_token(ended)
    after = request(ended)
    until = time.monotonic() + 30
    while is_cached and after == before and time.monotonic() < until:
        after = request(ended)
    found["revoked between two requests"] = (before, after)
    agent.lock()
    found["agent locked"] = request(valid)
    agent.unlock()
    agent.stop()
    found["agent away"] = request(valid)
    agent.start()
    found["agent back"] = request(valid)
    return found
