from __future__ import annotations

import json
import os
import re

import pytest

from agentd_client.protocol.limits import MAX_LABEL_CHARACTERS, MAX_SCOPE_CHARACTERS, MAX_SCOPES

from . import recipes
from .proxies import Ports, curl, free_ports, needs, prepared, running
from .table import AUDIENCE, EXPECTED, SCOPE, statuses

PAGE = "nginx.md"
pytestmark = needs("nginx", "curl")

MAIN = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/temporary-1;
    proxy_temp_path {folder}/temporary-2;
    fastcgi_temp_path {folder}/temporary-3;
    uwsgi_temp_path {folder}/temporary-4;
    scgi_temp_path {folder}/temporary-5;
    include {folder}/pages.conf;
    include {folder}/application.conf;
}}
"""


@pytest.fixture
def nginx(agent, tmp_path):
    """The recipe's two servers, by nginx itself."""
    ports = free_ports()
    with prepared(PAGE, tmp_path, ports):
        user = "user root;" if os.geteuid() == 0 else ""
        (tmp_path / "nginx.conf").write_text(MAIN.format(user=user, folder=tmp_path))
        command = ["nginx", "-e", f"{tmp_path}/error.log", "-c", f"{tmp_path}/nginx.conf"]
        with running(command, ports.pages, tmp_path):
            yield ports


@pytest.mark.parametrize("server", Ports._fields)
def test_it_answers_as_every_guarded_server_does(agent, nginx, server):
    url = f"http://127.0.0.1:{getattr(nginx, server)}/"
    assert statuses(agent, lambda token: curl(url, token).status) == EXPECTED


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_what_the_check_says_reaches_the_caller(agent, nginx, method):
    url = f"http://127.0.0.1:{nginx.application}/"
    arguments = {"HEAD": ["-I"], "POST": ["-d", "x" * 5000]}.get(method, [])
    good = agent.create_token(scopes=[SCOPE], audience=[AUDIENCE]).token
    assert curl(url, good, *arguments).status == 200
    (challenge,) = curl(url, None, *arguments).header("WWW-Authenticate")
    assert challenge == 'Bearer realm="agentd"'
    lacking = curl(url, agent.create_token(scopes=["write"], audience=[AUDIENCE]).token, *arguments)
    (challenge,) = lacking.header("WWW-Authenticate")
    assert 'error="insufficient_scope"' in challenge
    assert f'scope="{SCOPE}"' in challenge
    agent.lock()
    locked = curl(url, good, *arguments)
    assert (locked.status, locked.header("Retry-After")) == (503, ["10"])
    agent.stop()
    away = curl(url, good, *arguments)
    assert (away.status, away.header("Retry-After")) == (503, ["1"])
    if method != "HEAD":
        assert json.loads(away.body)["error"] == "temporarily_unavailable"


FORGED = [
    "Agentd-Session",
    "Agentd_Session",
    "agentd-label",
    "Agentd-Expires",
    "Agentd-Scopes",
    "Agentd-Every-Scope",
]


def test_the_program_gets_the_session_and_nothing_that_the_caller_sent_under_its_names(agent, nginx):
    url = f"http://127.0.0.1:{nginx.application}/"
    forged = [word for name in FORGED for word in ("-H", f"{name}: forged")]
    created = agent.create_token("never", "a desk", scopes=[SCOPE], audience=[AUDIENCE])
    seen = json.loads(curl(url, created.token, *forged).body)
    assert {name: value for name, value in seen.items() if "AGENTD" in name} == {
        "HTTP_AGENTD_SESSION": created.id,
        "HTTP_AGENTD_LABEL": "a%20desk",
        "HTTP_AGENTD_SCOPES": SCOPE,
    }
    assert "HTTP_AUTHORIZATION" not in seen
    created = agent.create_token(600, audience=[AUDIENCE])
    seen = json.loads(curl(url, created.token, *forged).body)
    assert {name: value for name, value in seen.items() if "AGENTD" in name} == {
        "HTTP_AGENTD_SESSION": created.id,
        "HTTP_AGENTD_EXPIRES": str(int(created.expires_at)),
        "HTTP_AGENTD_EVERY_SCOPE": "true",
    }


def test_the_query_of_the_caller_changes_nothing(agent, nginx):
    mail = agent.create_token(scopes=[SCOPE], audience=["mail"]).token
    for port in nginx:
        assert curl(f"http://127.0.0.1:{port}/?audience=mail&scope=", mail).status == 401


def test_the_check_cannot_be_asked_from_outside(agent, nginx):
    token = agent.create_token(scopes=[SCOPE], audience=[AUDIENCE]).token
    assert curl(f"http://127.0.0.1:{nginx.pages}/check", token).status == 404


def test_the_longest_session_fits(agent, nginx):
    scopes = [SCOPE, *(f"{at:x<{MAX_SCOPE_CHARACTERS}}" for at in range(1, MAX_SCOPES))]
    created = agent.create_token(label="\N{BRICK}" * MAX_LABEL_CHARACTERS, scopes=scopes, audience=[AUDIENCE])
    for port in nginx:
        assert curl(f"http://127.0.0.1:{port}/", created.token).status == 200


def test_no_token_is_logged(agent, nginx, tmp_path):
    token = agent.create_token(scopes=["write"]).token
    url = f"http://127.0.0.1:{nginx.pages}/"
    agent.lock()
    assert curl(url, token).status == 503
    agent.stop()
    assert curl(url, token).status == 503
    logs = [(tmp_path / name).read_text() for name in ("access.log", "error.log")]
    assert all(logs)
    assert not any(token in log for log in logs)


def test_the_recipe_says_what_curl_prints(agent, nginx, tmp_path):
    text = recipes.transcript(PAGE)
    address = ("127.0.0.1:8080", f"127.0.0.1:{nginx.pages}")
    assert recipes.carried_out(text, tmp_path, address) == text


def test_eight_lines_guard_the_page(tmp_path):
    recipes.write_files(PAGE, tmp_path)
    first, second = re.findall(r"location (?:= )?/\S* ?\{.*?\}", (tmp_path / "pages.conf").read_text(), re.S)
    assert len(first.splitlines()) - 2 + len(second.splitlines()) == 8
