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


@pytest.mark.parametrize(
    ("path", "root", "status"),
    [
        ("/health", "", 200),
        ("/api/health", "/api", 200),
        ("/health", "/api", 200),
        ("/health", "/health", 401),
        ("/public/index", "/public", 401),
        ("/public/health", "/public/", 401),
        ("/publichealth", "/public", 401),
    ],
)
async def test_exempt_is_what_is_below_the_root(path, root, status):
    # Daphne takes the root path from a header of the request, and frameworks route by the rest.
    answers: list[Any] = []

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {"type": "http", "path": path, "root_path": root, "headers": [], "method": "GET"}
    guarded = SessionMiddleware(application, exempt=["/health", "/public/index"])
    await guarded(scope, None, send)  # type: ignore[arg-type]
    assert answers[0]["status"] == status
