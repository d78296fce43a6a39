# Without postponed annotations: FastAPI could not find the names inside `application`.
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect
from fastapi.testclient import TestClient

from agentd_client.ext.fastapi import Admission, require_session

from . import serving
from .table import AUDIENCE, EXPECTED, SCOPE, statuses


def application(**options) -> FastAPI:
    app = FastAPI()
    reader = require_session(**options)

    @app.get("/")
    def notes(session: Annotated[Admission, Depends(reader)]) -> str:
        return session.label

    return app


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def test_it_answers_as_every_guarded_server_does(agent):
    with serving.asgi(application(scopes=[SCOPE], audience=AUDIENCE)) as url:
        assert statuses(agent, lambda token: httpx.get(url, headers=bearer(token)).status_code) == EXPECTED


def test_the_operation_gets_the_session(agent):
    with serving.asgi(application()) as url:
        assert httpx.get(url, headers=bearer(agent.create_token(label="desk").token)).json() == "desk"


def test_a_websocket_is_accepted_with_a_session_only(agent):
    app = FastAPI()
    reader = require_session()

    @app.websocket("/")
    async def notes(websocket: WebSocket, session: Annotated[Admission, Depends(reader)]) -> None:
        await websocket.accept()
        await websocket.send_text(session.label)

    client = TestClient(app)
    with client.websocket_connect("/", headers=bearer(agent.create_token(label="desk").token)) as connection:
        assert connection.receive_text() == "desk"
    for token in (None, "v4.local.nothing"):
        with pytest.raises(WebSocketDisconnect) as refused:
            client.websocket_connect("/", headers=bearer(token)).__enter__()
        assert refused.value.code == 1008


def test_the_answer_has_the_headers_of_rfc_6750(agent):
    with serving.asgi(application(scopes=["read"])) as url:
        answer = httpx.get(url, headers=bearer(agent.create_token(scopes=[]).token))
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
    assert 'scope="read"' in answer.headers["WWW-Authenticate"]


def test_openapi_shows_a_bearer_token(agent):
    schema = application().openapi()
    assert schema["components"]["securitySchemes"]["session"] == {
        "type": "http",
        "scheme": "bearer",
        "description": "The token of a session: `agentctl token`",
    }
    assert schema["paths"]["/"]["get"]["security"] == [{"session": []}]
