from __future__ import annotations

import json

import pytest

from . import recipes
from .proxies import Ports, curl, free_ports, needs, prepared, running
from .table import AUDIENCE, EXPECTED, SCOPE, statuses

PAGE = "caddy.md"
pytestmark = needs("caddy", "curl")

MAIN = """
{
	admin off
	auto_https off
}
import Caddyfile
import application.caddy
"""


@pytest.fixture
def caddy(agent, tmp_path):
    """The recipe's two sites, by Caddy itself."""
    ports = free_ports()
    with prepared(PAGE, tmp_path, ports):
        (tmp_path / "main.caddy").write_text(MAIN)
        command = ["caddy", "run", "--config", "main.caddy", "--adapter", "caddyfile"]
        home = str(tmp_path / "home")
        environ = {"HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}
        with running(command, ports.pages, tmp_path, environ):
            yield ports


@pytest.mark.parametrize("site", Ports._fields)
def test_it_answers_as_every_guarded_server_does(agent, caddy, site):
    url = f"http://127.0.0.1:{getattr(caddy, site)}/"
    assert statuses(agent, lambda token: curl(url, token).status) == EXPECTED


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_what_the_check_says_reaches_the_caller(agent, caddy, method):
    url = f"http://127.0.0.1:{caddy.application}/"
    arguments = {"HEAD": ["-I"], "POST": ["-d", "x" * 5000]}.get(method, [])
    good = agent.create_token(scopes=[SCOPE], audience=[AUDIENCE]).token
    assert curl(url, good, *arguments).status == 200
    (challenge,) = curl(url, None, *arguments).header("WWW-Authenticate")
    assert challenge == 'Bearer realm="agentd"'
    lacking = curl(url, agent.create_token(scopes=["write"], audience=[AUDIENCE]).token, *arguments)
    (challenge,) = lacking.header("WWW-Authenticate")
    assert f'scope="{SCOPE}"' in challenge
    agent.lock()
    locked = curl(url, good, *arguments)
    assert (locked.status, locked.header("Retry-After")) == (503, ["10"])
    agent.stop()
    away = curl(url, good, *arguments)
    assert (away.status, away.header("Retry-After")) == (503, ["1"])


FORGED = [
    "Agentd-Session",
    "Agentd_Session",
    "agentd-label",
    "Agentd-Expires",
    "Agentd-Every-Scope",
    "Agentd-Other",
]


def test_the_program_gets_the_session_and_nothing_that_the_caller_sent_under_its_names(agent, caddy):
    url = f"http://127.0.0.1:{caddy.application}/"
    forged = [word for name in FORGED for word in ("-H", f"{name}: forged")]
    created = agent.create_token("never", "a desk", scopes=[SCOPE], audience=[AUDIENCE])
    seen = json.loads(curl(url, created.token, *forged).body)
    assert {name: value for name, value in seen.items() if "AGENTD" in name} == {
        "HTTP_AGENTD_SESSION": created.id,
        "HTTP_AGENTD_LABEL": "a%20desk",
        "HTTP_AGENTD_EXPIRES": "",
        "HTTP_AGENTD_SCOPES": SCOPE,
        "HTTP_AGENTD_EVERY_SCOPE": "",
    }
    assert "HTTP_AUTHORIZATION" not in seen


def test_the_query_of_the_caller_changes_nothing(agent, caddy):
    mail = agent.create_token(scopes=[SCOPE], audience=["mail"]).token
    for port in caddy:
        assert curl(f"http://127.0.0.1:{port}/?audience=mail&scope=", mail).status == 401


def test_an_upgrade_to_a_websocket_is_asked_about_like_any_request(agent, caddy):
    token = agent.create_token(scopes=[SCOPE], audience=[AUDIENCE]).token
    url = f"http://127.0.0.1:{caddy.application}/"
    upgrade = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket"]
    assert curl(url, token, *upgrade).status == 200
    assert curl(url, None, *upgrade).status == 401


def test_no_token_is_logged(agent, caddy, tmp_path):
    token = agent.create_token(scopes=["write"]).token
    agent.stop()
    for port in caddy:
        assert curl(f"http://127.0.0.1:{port}/", token).status == 503
    assert token not in (tmp_path / "log").read_text()


def test_the_recipe_says_what_curl_prints(agent, caddy, tmp_path):
    text = recipes.transcript(PAGE)
    address = ("127.0.0.1:8080", f"127.0.0.1:{caddy.pages}")
    assert recipes.carried_out(text, tmp_path, address) == text
