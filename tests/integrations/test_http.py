from __future__ import annotations

import logging
import os
from urllib.parse import unquote

import httpx
import pytest

from agentd_client.ext.guard import Guard
from agentd_client.http import Application

from . import serving
from .table import AUDIENCE, EXPECTED, SCOPE, statuses

CHECK = {"scope": SCOPE, "audience": AUDIENCE}


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


@pytest.fixture
def http(agent):
    with serving.asgi(Application()) as url, httpx.Client(base_url=url) as http:
        yield http


def test_check_answers_as_every_guarded_server_does(agent, http):
    def request(token: str | None) -> int:
        return http.get("/check", params=CHECK, headers=bearer(token)).status_code

    success = {name: 204 if status == 200 else status for name, status in EXPECTED.items()}
    success["revoked between two requests"] = (204, 401)
    assert statuses(agent, request) == success


def test_check_names_the_session_in_headers(agent, http):
    created = agent.create_token(600, label="d\xe9sk 1\n"[:-1], scopes=["read", "write"])
    answer = http.get("/check?scope=read+write", headers=bearer(created.token))
    assert (answer.status_code, answer.content) == (204, b"")
    named = {name: value for name, value in answer.headers.items() if name.startswith("agentd-")}
    assert named == {
        "agentd-session": created.id,
        "agentd-label": "d%C3%A9sk%201",
        "agentd-scopes": "read write",
        "agentd-every-scope": "",
        "agentd-expires": str(int(created.expires_at)),
    }
    every = agent.create_token("never").token
    answer = http.get("/check?scope=read&scope=write", headers=bearer(every)).headers
    assert answer["agentd-every-scope"] == "true"
    assert answer["agentd-scopes"] == answer["agentd-label"] == answer["agentd-expires"] == ""


@pytest.mark.parametrize(
    "label", [" padded ", "\N{FULL BLOCK}" * 200, 'a: b, c; "d"\\', "%0d%0aSet-Cookie: x"]
)
def test_no_label_breaks_the_headers(agent, http, label):
    token = agent.create_token(label=label).token
    shown = http.get("/check", headers=bearer(token)).headers["agentd-label"]
    assert shown.isascii()
    assert shown.isprintable()
    assert unquote(shown) == label


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
def test_check_takes_every_method(agent, http, method):
    token = agent.create_token().token
    assert http.request(method, "/check", headers=bearer(token)).status_code == 204
    assert http.request(method, "/check").status_code == 401


def test_envoy_appends_what_it_asks_about_which_changes_nothing(agent):
    guard = Guard(scopes=["read"], audience="notes")
    mail = agent.create_token(scopes=["read"], audience=["mail"]).token
    notes = agent.create_token(scopes=["read"], audience=["notes"]).token
    with serving.asgi(Application(guard)) as url:
        for path in ("/", "/page?x=1", "/page?audience=mail&scope=", "//check?%ff"):
            answer = httpx.post(f"{url}/ext_authz{path}", headers=bearer(notes))
            assert (answer.status_code, answer.content, path) == (200, b"", path)
            assert answer.headers["agentd-scopes"] == "read"
            assert httpx.get(f"{url}/ext_authz{path}", headers=bearer(mail)).status_code == 401


def test_a_query_that_a_proxy_passes_on_cannot_change_the_audience(agent):
    mail = agent.create_token(audience=["mail"]).token
    with serving.asgi(Application(Guard(audience="notes"))) as url:
        assert httpx.get(f"{url}/check", headers=bearer(mail)).status_code == 401
        assert httpx.get(f"{url}/check?audience=mail", headers=bearer(mail)).status_code == 400
        assert httpx.get(f"{url}/check?audience=notes", headers=bearer(mail)).status_code == 401
        asked = {"token": mail, "audience": "mail"}
        assert httpx.post(f"{url}/introspect", data=asked).status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        "audience=a&audience=b",
        "scope=%ff%22",
        "scope=" + "+".join(map(str, range(17))),
        "scope=a&" * 40,
        "scopes=read",
        "scope=",
        "scope=read&scope=",
        "scope=+",
        "audience=",
        "scope",
        "\xe9",
    ],
)
def test_what_the_proxy_asks_wrongly_is_a_400(agent, http, query):
    token = agent.create_token().token
    assert http.get(f"/check?{query}", headers=bearer(token)).status_code == 400


def introspected(http: httpx.Client, **form: str) -> dict[str, object]:
    answer = http.post("/introspect", data=form)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


def test_introspection_is_that_of_rfc_7662(agent, http):
    created = agent.create_token(600, label="desk", scopes=["read", "write"], audience=["notes", "mail"])
    assert introspected(http, token=created.token, audience="notes", token_type_hint="access_token") == {
        "active": True,
        "token_type": "Bearer",
        "scope": "read write",
        "aud": ["notes", "mail"],
        "jti": created.id,
        "iat": int(created.expires_at - 600),
        "exp": int(created.expires_at),
        "sub": str(os.getuid()),
        "agentd_label": "desk",
    }
    unlimited = introspected(http, token=agent.create_token("never").token)
    assert unlimited["agentd_every_scope"] is True
    assert unlimited.keys().isdisjoint({"scope", "exp", "aud"})


def test_of_what_is_not_active_introspection_says_nothing_else(agent, http):
    ended = agent.create_token()
    agent.revoke(ended)
    narrow = agent.create_token(scopes=[], audience=["notes"]).token
    for form in (
        {"token": "v4.local.nothing"},
        {"token": "two words"},
        {"token": ""},
        {"token": ended.token},
        {"token": narrow},
        {"token": narrow, "audience": "notes", "scope": "read"},
    ):
        assert introspected(http, **form) == {"active": False}, form


def test_introspection_of_an_agent_that_cannot_know_is_neither(agent, http):
    token = agent.create_token().token
    agent.lock()
    locked = http.post("/introspect", data={"token": token})
    assert (locked.status_code, locked.headers["retry-after"]) == (503, "10")
    agent.stop()
    assert http.post("/introspect", data={"token": token}).status_code == 503


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"method": "GET", "url": "/introspect?token=x"}, 405),
        ({"method": "POST", "url": "/introspect", "json": {"token": "x"}}, 415),
        ({"method": "POST", "url": "/introspect", "data": {"other": "x"}}, 400),
        ({"method": "POST", "url": "/introspect", "data": {"token": ["x", "y"]}}, 400),
        ({"method": "POST", "url": "/introspect", "data": {"token": "x" * 40_000}}, 400),
        ({"method": "GET", "url": "/"}, 404),
        ({"method": "GET", "url": "/checks"}, 404),
        ({"method": "GET", "url": "/check/"}, 404),
        ({"method": "GET", "url": "/ext_authz"}, 404),
        ({"method": "POST", "url": "/health"}, 404),
    ],
)
def test_other_requests_are_refused_by_name(agent, http, request_, status):
    assert http.request(**request_).status_code == status


def test_health_is_that_of_the_agent(agent, http):
    assert http.get("/health").status_code == 200
    agent.lock()
    assert http.get("/health").status_code == 503
    agent.unlock()
    agent.stop()
    assert http.get("/health").status_code == 503


@pytest.mark.parametrize(
    "host", ["example.com", "localhost.example.com", "127.0.0.1.example.com:80", "", "[::2]"]
)
def test_a_foreign_host_is_refused_whatever_it_asks(agent, http, host):
    token = agent.create_token().token
    headers = bearer(token) | {"Host": host}
    assert http.get("/check", headers=headers).status_code == 403
    assert http.get("/health", headers=headers).status_code == 403


@pytest.mark.parametrize("origin", ["https://example.com", "null", "http://localhost.evil", "file://", "x"])
def test_a_foreign_origin_is_refused(agent, http, origin):
    headers = bearer(agent.create_token().token) | {"Origin": origin}
    assert http.get("/check", headers=headers).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:443", "[::1]"])
def test_its_own_names_are_not_foreign(agent, http, host):
    headers = bearer(agent.create_token().token) | {"Host": host, "Origin": f"http://{host}"}
    assert http.get("/check", headers=headers).status_code == 204


def test_at_the_verify_socket_it_says_what_that_says(agent):
    guard = Guard(socket_path=agent.verify_socket_path)
    token = agent.create_token(scopes=["read"], label="desk").token
    with serving.asgi(Application(guard)) as url:
        answer = httpx.get(f"{url}/check?scope=read", headers=bearer(token))
        assert (answer.status_code, answer.headers["agentd-scopes"]) == (204, "read")
        assert answer.headers["agentd-session"] == ""
        known = httpx.post(f"{url}/introspect", data={"token": token}).json()
        assert known == {"active": True, "token_type": "Bearer", "scope": "read"}
        assert httpx.get(f"{url}/health").status_code == 200


def test_the_access_log_has_no_token(agent, caplog):
    caplog.set_level(logging.INFO, "access")
    token = agent.create_token().token
    with serving.asgi(Application(access_log=logging.getLogger("access"))) as url:
        httpx.get(f"{url}/check?audience={token}", headers=bearer(token))
        httpx.get(f"{url}/{token}?token={token}")
        httpx.request(token, f"{url}/health")
        httpx.post(f"{url}/introspect", data={"token": token})
    lines = [record.getMessage() for record in caplog.records if record.name == "access"]
    assert [line.rpartition(" ")[0].rpartition(" ")[0] for line in lines] == [
        "GET /check 400",
        "GET (unknown) 404",
        "(other) /health 404",
        "POST /introspect 200",
    ]
    assert token not in caplog.text
