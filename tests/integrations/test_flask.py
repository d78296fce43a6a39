from __future__ import annotations

import httpx
from flask import Flask

from agentd_client.ext.flask import SessionGuard

from . import serving
from .table import AUDIENCE, EXPECTED, SCOPE, statuses


def application(**options) -> Flask:
    app = Flask(__name__)
    guard = SessionGuard(app, **options)

    @app.get("/")
    def notes() -> str:
        return guard.session.label

    @app.get("/write")
    @guard.requires("write")
    def write() -> str:
        return guard.session.label

    @app.get("/health")
    @guard.exempt
    def health() -> str:
        return "ok"

    return app


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def test_it_answers_as_every_guarded_server_does(agent):
    with serving.wsgi(application(scopes=[SCOPE], audience=AUDIENCE)) as url:
        assert statuses(agent, lambda token: httpx.get(url, headers=bearer(token)).status_code) == EXPECTED


def test_a_view_may_need_more_or_nothing(agent):
    reader = agent.create_token(scopes=["read"], label="reader").token
    writer = agent.create_token(scopes=["read", "write"], label="writer").token
    with serving.wsgi(application()) as url:
        assert httpx.get(url, headers=bearer(reader)).text == "reader"
        refused = httpx.get(f"{url}/write", headers=bearer(reader))
        assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")
        assert httpx.get(f"{url}/write", headers=bearer(writer)).text == "writer"
        assert httpx.get(f"{url}/health").text == "ok"
        assert httpx.get(f"{url}/nothing").status_code == 401, "nobody learns which paths there are"


def test_an_application_may_come_later(agent):
    app = Flask(__name__)
    SessionGuard().init_app(app)
    with serving.wsgi(app) as url:
        assert httpx.get(url).status_code == 401
