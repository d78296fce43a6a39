from __future__ import annotations

import logging
import sys

import httpx
import pytest
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import MCPServer

from agentd_client.ext.mcp import DeniedMiddleware, SessionTokenVerifier

from . import recipes, serving
from .calling_mcp import called
from .table import AUDIENCE, EXPECTED, SCOPE, statuses

PAGE = "mcp.md"


def application(**options):
    verifier = SessionTokenVerifier(**options)
    server = MCPServer("notes", token_verifier=verifier, auth=verifier.settings)

    @server.tool()
    def read() -> dict[str, object]:
        """Read the notes."""
        session = get_access_token()
        return {"id": session.client_id, "label": session.label, "scopes": session.scopes}

    app = server.streamable_http_app()
    app.add_middleware(DeniedMiddleware)
    return app


@pytest.mark.parametrize("cache", [False, True], ids=["asked each time", "cached"])
def test_the_sdks_client_is_answered_as_every_guarded_server_does(agent, cache):
    with serving.asgi(application(scopes=[SCOPE], audience=AUDIENCE, cache=cache)) as url:
        assert statuses(agent, lambda token: called(url, token)[0], is_cached=cache) == EXPECTED


@pytest.mark.parametrize(
    ("scopes", "shown"), [(None, ["read"]), (["read", "write"], ["read", "write"])], ids=["all", "named"]
)
def test_a_tool_sees_the_session(agent, scopes, shown):
    created = agent.create_token(label="desk", scopes=scopes)
    with serving.asgi(application(scopes=["read"])) as url:
        assert called(url, created.token) == (200, {"id": created.id, "label": "desk", "scopes": shown})


def test_sessions_without_a_known_id_are_told_apart(agent):
    with serving.asgi(application(socket_path=agent.verify_socket_path)) as url:
        (_, first), (_, second) = (called(url, agent.create_token().token) for _ in range(2))
    assert first["id"] != second["id"]


def test_a_scope_that_is_missing_is_named(agent):
    token = agent.create_token(scopes=["write"]).token
    with serving.asgi(application(scopes=["read"])) as url:
        answer = httpx.post(f"{url}/mcp", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
    assert 'scope="read"' in answer.headers["WWW-Authenticate"]


def test_without_the_middleware_an_agent_that_is_away_is_neither_a_yes_nor_a_401(agent, caplog):
    verifier = SessionTokenVerifier()
    app = MCPServer("notes", token_verifier=verifier, auth=verifier.settings).streamable_http_app()
    token = agent.create_token().token
    agent.stop()
    caplog.set_level(logging.DEBUG)
    with serving.asgi(app) as url:
        answer = httpx.post(f"{url}/mcp", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 500
    assert token not in caplog.text


async def test_what_cannot_be_a_token_is_none_and_a_token_is_not_shown(agent):
    verifier = SessionTokenVerifier()
    for nonsense in ("", "two words", "x" * 40_000, "\udcff"):
        assert await verifier.verify_token(nonsense) is None
    token = agent.create_token(600).token
    session = await verifier.verify_token(token)
    assert session.token == token
    assert token not in repr(session) + str(session)


def test_the_recipe_runs(agent, tmp_path):
    recipes.write_files(PAGE, tmp_path)
    command = [sys.executable, "-m", "uvicorn", "notes_server:app", "--port", "0"]
    shown = recipes.transcript(PAGE)
    with serving.started(command, tmp_path, r"running on (http://\S+)") as url:
        assert recipes.carried_out(shown, tmp_path, ("http://127.0.0.1:8000", url)) == shown
        recipes.carried_out("$ agentctl login\n", tmp_path, ("", ""))
        agent.lock()
        shown = "$ python notes_client.py http://127.0.0.1:8000/mcp\n503\n"
        assert recipes.carried_out(shown, tmp_path, ("http://127.0.0.1:8000", url)) == shown
        agent.stop()
        assert recipes.carried_out(shown, tmp_path, ("http://127.0.0.1:8000", url)) == shown
