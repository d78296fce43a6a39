from __future__ import annotations

import httpx
from aiohttp import web

from agentd_client.ext.aiohttp import SESSION, session_middleware

from . import serving
from .table import AUDIENCE, EXPECTED, SCOPE, statuses


def application(**options) -> web.Application:
    async def notes(request: web.Request) -> web.Response:
        return web.Response(text=request[SESSION].label if SESSION in request else "exempt")

    app = web.Application(middlewares=[session_middleware(**options)])
    app.router.add_get("/", notes)
    app.router.add_get("/health", notes)
    return app


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def test_it_answers_as_every_guarded_server_does(agent):
    with serving.aiohttp(application(scopes=[SCOPE], audience=AUDIENCE)) as url:
        assert statuses(agent, lambda token: httpx.get(url, headers=bearer(token)).status_code) == EXPECTED


def test_the_handler_finds_the_session_and_what_is_exempt_needs_none(agent):
    token = agent.create_token(label="desk").token
    with serving.aiohttp(application(exempt=["/health"], query="token")) as url:
        assert httpx.get(url, headers=bearer(token)).text == "desk"
        assert httpx.get(url, params={"token": token}).text == "desk"
        assert httpx.get(f"{url}/health").text == "exempt"
        assert httpx.get(f"{url}/nothing").status_code == 401, "nobody learns which paths there are"


def test_an_encoded_slash_makes_nothing_exempt(agent):
    app = application(exempt=["/public/index", "/50%"])

    async def named(request: web.Request) -> web.Response:
        return web.Response(text=request.match_info["name"])

    app.router.add_get("/{name}", named)
    with serving.aiohttp(app) as url:
        assert httpx.get(f"{url}/public%2Findex").status_code == 401
        assert httpx.get(f"{url}/50%25").text == "50%"


def test_two_headers_are_a_malformed_request(agent):
    token = agent.create_token().token
    with serving.aiohttp(application()) as url:
        headers = [("Authorization", f"Bearer {token}")] * 2
        assert httpx.get(url, headers=headers).status_code == 400
