from __future__ import annotations

from typing import Any

import httpx
import pytest

from agentd_client.ext.asgi import SCOPE_KEY, SessionMiddleware

from . import serving
from .table import AUDIENCE, EXPECTED, SCOPE, statuses


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    label = scope[SCOPE_KEY].label if SCOPE_KEY in scope else "exempt"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": label.encode()})


@pytest.mark.parametrize("cache", [False, True], ids=["asked each time", "cached"])
def test_it_answers_as_every_guarded_server_does(agent, cache):
    guarded = SessionMiddleware(application, scopes=[SCOPE], audience=AUDIENCE, cache=cache)
    with serving.asgi(guarded) as url, httpx.Client() as http:

        def request(token: str | None) -> int:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            return http.get(url, headers=headers).status_code

        assert statuses(agent, request, is_cached=cache) == EXPECTED


def test_the_application_finds_the_session_and_what_is_exempt_needs_none(agent):
    token = agent.create_token(label="desk").token
    with serving.asgi(SessionMiddleware(application, exempt=["/health"])) as url:
        answer = httpx.get(url, headers={"Authorization": f"bearer {token}"})
        assert answer.text == "desk"
        assert httpx.get(f"{url}/health").text == "exempt"
