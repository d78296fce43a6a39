from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from agentd_client.ext.starlette import SessionBackend, on_error

from . import serving
from .table import AUDIENCE, EXPECTED, SCOPE, statuses


@requires("read", status_code=401)
async def notes(request: Request) -> JSONResponse:
    return JSONResponse([request.user.display_name, request.user.identity, request.user.is_authenticated])


@requires("write")
async def write(request: Request) -> JSONResponse:
    return JSONResponse([])


def application(**options) -> Starlette:
    backend = SessionBackend(**options)
    return Starlette(
        routes=[Route("/", notes), Route("/write", write)],
        middleware=[Middleware(AuthenticationMiddleware, backend=backend, on_error=on_error)],
    )


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def test_it_answers_as_every_guarded_server_does(agent):
    guarded = application(scopes=[SCOPE], audience=AUDIENCE)
    with serving.asgi(guarded) as url:
        assert statuses(agent, lambda token: httpx.get(url, headers=bearer(token)).status_code) == EXPECTED


def test_the_user_is_the_session(agent):
    named = agent.create_token(label="desk")
    unnamed = agent.create_token()
    with serving.asgi(application()) as url:
        assert httpx.get(url, headers=bearer(named.token)).json() == ["desk", named.id, True]
        assert httpx.get(url, headers=bearer(unnamed.token)).json() == [unnamed.id, unnamed.id, True]


@pytest.mark.parametrize(
    ("scopes", "status"), [(None, 200), (["read", "write"], 200), (["read"], 403), ([], 403)]
)
def test_required_scopes_are_those_of_the_session_and_without_scopes_it_has_all(agent, scopes, status):
    token = agent.create_token(scopes=scopes).token
    with serving.asgi(application()) as url:
        assert httpx.get(f"{url}/write", headers=bearer(token)).status_code == status


def test_the_answer_has_the_headers_of_rfc_6750(agent):
    with serving.asgi(application(realm="notes")) as url:
        answer = httpx.get(url, headers=bearer("v4.local.nothing"))
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="notes", error="invalid_token"')
    assert answer.json()["error"] == "invalid_token"
