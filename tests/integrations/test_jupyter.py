from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import websocket

from . import recipes, serving
from .table import AUDIENCE, EXPECTED, SCOPE, statuses

PAGE = "jupyter.md"


@contextmanager
def serve(folder: Path, **options: object) -> Iterator[str]:
    lines = [
        'c.ServerApp.identity_provider_class = "agentd_client.ext.jupyter.SessionIdentityProvider"',
        *(f"c.SessionIdentityProvider.{name} = {value!r}" for name, value in options.items()),
    ]
    (folder / "hello.txt").write_text("hello")
    with serving.jupyter("\n".join(lines), folder) as url:
        yield url


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


@contextmanager
def opened_websocket(url: str, headers: dict[str, str]) -> Iterator[websocket.WebSocket]:
    address = url.replace("http:", "ws:") + "/api/events/subscribe"
    opened = websocket.create_connection(address, timeout=60, header=headers)
    try:
        yield opened
    finally:
        opened.shutdown()


def subscribed(url: str, token: str | None) -> int:
    """Open a WebSocket, or be answered with a status."""
    try:
        with opened_websocket(url, bearer(token)):
            return 200
    except websocket.WebSocketBadStatusException as refused:
        return refused.status_code


def test_calls_and_websockets_are_answered_as_by_every_guarded_server(agent, tmp_path):
    with serve(tmp_path, scopes=[SCOPE], audience=AUDIENCE) as url:
        status = f"{url}/api/status"
        assert statuses(agent, lambda token: httpx.get(status, headers=bearer(token)).status_code) == EXPECTED
        assert statuses(agent, lambda token: subscribed(url, token)) == EXPECTED


def test_a_cached_yes_ends_with_its_session(agent, tmp_path):
    with serve(tmp_path, scopes=[SCOPE], audience=AUDIENCE, cache=True) as url:
        status = f"{url}/api/status"
        assert (
            statuses(
                agent, lambda token: httpx.get(status, headers=bearer(token)).status_code, is_cached=True
            )
            == EXPECTED
        )


def test_tokens_in_headers_need_no_xsrf_token_and_may_come_from_any_origin(agent, tmp_path):
    created = agent.create_token(label="desk")
    token, foreign = created.token, {"Origin": "https://example.com"}
    with serve(tmp_path) as url:
        for authorization in (f"Bearer {token}", f"token {token}"):
            headers = {"Authorization": authorization, **foreign}
            assert httpx.post(f"{url}/api/contents", headers=headers, json={}).status_code == 201
        identity = httpx.get(f"{url}/api/me", headers=bearer(token)).json()["identity"]
        assert (identity["username"], identity["display_name"]) == (created.id, "desk")
        assert "set-cookie" not in httpx.get(f"{url}/api/status", headers=bearer(token)).headers
        twice = [("Authorization", f"Bearer {token}")] * 2
        assert httpx.get(f"{url}/api/status", headers=twice).status_code == 400
        assert httpx.get(f"{url}/api/status", params={"token": token}).status_code == 401
        assert httpx.get(f"{url}/files/hello.txt", headers=bearer("v4.local.nothing")).status_code == 401
        jupyters = {"Authorization": "token not any more"}
        assert httpx.get(f"{url}/api/status", headers=jupyters).status_code == 400


@pytest.mark.parametrize("by_cookie", [False, True], ids=["token", "cookie"])
@pytest.mark.parametrize(("ending", "code"), [("revoke", 1008), ("lock", 1013), ("stop", 1013)])
def test_an_open_websocket_is_closed_when_its_session_ends(agent, tmp_path, by_cookie, ending, code):
    created, other = agent.create_token(), agent.create_token()
    with serve(tmp_path, websocket_seconds=0.01) as url, httpx.Client(base_url=url) as http:
        headers = bearer(created.token)
        if by_cookie:
            log_in(http, created.token)
            headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in http.cookies.items())}
        with (
            opened_websocket(url, headers) as opened,
            opened_websocket(url, bearer(other.token)) as kept,
        ):
            if ending == "revoke":
                agent.revoke(created)
            else:
                getattr(agent, ending)()
            opcode, data = opened.recv_data()
            assert (opcode, int.from_bytes(data[:2])) == (websocket.ABNF.OPCODE_CLOSE, code)
            if ending == "revoke":
                kept.ping("still there")
                assert kept.recv_data(control_frame=True) == (websocket.ABNF.OPCODE_PONG, b"still there")


def test_the_answer_has_the_headers_of_rfc_6750(agent, tmp_path):
    with serve(tmp_path, scopes=["read"], query="token") as url:
        refused = httpx.get(f"{url}/api/status", params={"token": agent.create_token(scopes=[]).token})
        assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")
        assert 'scope="read"' in refused.headers["WWW-Authenticate"]
        assert httpx.get(f"{url}/api/status").headers["WWW-Authenticate"] == 'Bearer realm="agentd"'
        agent.stop()
        assert httpx.get(f"{url}/api/status", headers=bearer("x")).headers["Retry-After"] == "1"
        assert httpx.get(f"{url}/api/status").status_code == 401


def log_in(http: httpx.Client, typed: str) -> httpx.Response:
    page = http.get("/login")
    assert page.status_code == 200
    assert "agentctl token --show" in page.text
    return http.post("/login", data={"password": typed, "_xsrf": http.cookies["_xsrf"]})


def test_a_browser_logs_in_with_the_token_and_out_with_the_session(agent, tmp_path):
    created = agent.create_token(600, audience=["notes"])
    with serve(tmp_path, audience="notes") as url, httpx.Client(base_url=url) as http:
        http.headers["Referer"] = f"{url}/"
        asked = http.get("/files/hello.txt")
        assert (asked.status_code, asked.headers["Location"]) == (302, "/login?next=%2Ffiles%2Fhello.txt")
        for nonsense in ("nonsense", "", "two words", agent.create_token(audience=["mail"]).token):
            assert log_in(http, nonsense).status_code in (400, 401)
        assert log_in(http, agent.create_token(max_uses=9, audience=["notes"]).token).status_code == 403

        entered = log_in(http, created.token)
        assert entered.status_code == 302
        (cookie,) = [text for text in entered.headers.get_list("Set-Cookie") if text.startswith("agentd-")]
        assert created.token not in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert "expires" not in cookie.lower()
        assert http.get("/files/hello.txt").text == "hello"

        refused = http.post("/api/contents", json={})
        assert (refused.status_code, "_xsrf" in refused.text) == (403, True)
        xsrf = {"X-XSRFToken": http.cookies["_xsrf"]}
        assert http.post("/api/contents", json={}, headers=xsrf).status_code == 201
        assert http.get("/api/status", headers={"Origin": "https://example.com"}).status_code == 404

        agent.client.renew_token(created.token)
        assert http.get("/api/status").status_code == 200
        agent.lock()
        assert http.get("/api/status").status_code == 503
        assert http.get("/files/hello.txt").status_code == 503
        assert http.get("/login").status_code == 200
        agent.unlock()
        assert http.get("/api/status").status_code == 200
        agent.revoke(created)
        assert http.get("/api/status").status_code == 401
        assert http.get("/files/hello.txt").status_code == 302


def test_while_the_agent_is_away_nobody_logs_in(agent, tmp_path):
    token = agent.create_token().token
    with serve(tmp_path) as url, httpx.Client(base_url=url) as http:
        agent.stop()
        away = log_in(http, token)
        assert (away.status_code, away.headers["Retry-After"]) == (503, "1")
        assert token not in away.text


def test_at_the_verify_socket_tokens_work_and_browsers_cannot_log_in(agent, tmp_path):
    token = agent.create_token().token
    with serve(tmp_path, socket_path=agent.verify_socket_path) as url, httpx.Client(base_url=url) as http:
        assert http.get("/api/status", headers=bearer(token)).status_code == 200
        assert log_in(http, token).status_code == 403


def test_the_recipe_runs(agent, tmp_path):
    recipes.write_files(PAGE, tmp_path)
    configuration = (tmp_path / "jupyter_server_config.py").read_text()
    shown = recipes.transcript(PAGE)
    with serving.jupyter(configuration, tmp_path) as url:
        assert recipes.carried_out(shown, tmp_path, ("http://127.0.0.1:8888", url)) == shown
