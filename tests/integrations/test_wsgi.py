from __future__ import annotations

import socket
from urllib.parse import urlsplit

import httpx
import pytest

from agentd_client.ext.wsgi import ENVIRON_KEY, SessionMiddleware

from . import serving
from .table import AUDIENCE, EXPECTED, SCOPE, statuses


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ[ENVIRON_KEY].label.encode() if ENVIRON_KEY in environ else b"exempt"]


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("cache", [False, True], ids=["asked each time", "cached"])
def test_it_answers_as_every_guarded_server_does(agent, cache):
    guarded = SessionMiddleware(application, scopes=[SCOPE], audience=AUDIENCE, cache=cache)
    with serving.wsgi(guarded) as url:

        def request(token: str | None) -> int:
            return httpx.get(url, headers=bearer(token)).status_code

        assert statuses(agent, request, is_cached=cache) == EXPECTED


def test_the_application_finds_the_session_and_what_is_exempt_needs_none(agent):
    token = agent.create_token(label="desk").token
    with serving.wsgi(SessionMiddleware(application, exempt=["/health"], query="token")) as url:
        assert httpx.get(url, headers=bearer(token)).text == "desk"
        assert httpx.get(url, params={"token": token}).text == "desk"
        assert httpx.get(f"{url}/health").text == "exempt"
        assert httpx.get(f"{url}/health/").status_code == 401


@pytest.mark.parametrize("root", ["/health", "/he"])
def test_a_root_that_the_request_chose_makes_nothing_exempt(root):
    # gunicorn takes SCRIPT_NAME from a header of requests from this machine, and applications route by the rest.
    environ = {"SCRIPT_NAME": root, "PATH_INFO": "/health".removeprefix(root)}
    answers: list[str] = []
    guarded = SessionMiddleware(application, exempt=["/health"])
    guarded(environ, lambda status, headers: answers.append(status))
    assert answers == ["401 Unauthorized"]


def test_below_a_root_the_same_paths_are_exempt():
    answers: list[str] = []
    guarded = SessionMiddleware(application, exempt=["/health"])
    environ = {"SCRIPT_NAME": "/api", "PATH_INFO": "/health"}
    guarded(environ, lambda status, headers: answers.append(status))
    assert answers == ["200 OK"]


def test_two_headers_are_a_malformed_request(agent):
    token = agent.create_token().token
    with serving.wsgi(SessionMiddleware(application)) as url:
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port)) as connection:
            header = f"Authorization: Bearer {token}\r\n"
            connection.sendall(f"GET / HTTP/1.0\r\n{header}{header}\r\n".encode())
            answer = connection.makefile("rb").readline()
    assert answer.split()[1] == b"400"
