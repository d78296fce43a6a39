"""The programs of docs/calling.md call the servers of docs/guarding.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest

from agentd_client import Session

from . import serving
from .recipes import PATH
from .recording import Answer, recording
from .test_guarding_document import loaded

DOCUMENT = (Path(__file__).parents[2] / "docs" / "calling.md").read_text()
PROGRAMS: dict[str, str] = dict(
    re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```", DOCUMENT, re.M | re.S)
)
HTTP = ["httpx", "httpx2", "requests", "aiohttp", "Other libraries"]


@pytest.fixture(autouse=True)
def login(agent):
    Session.create_session(
        session_token=agent.create_token(label="desk", scopes=["read"], audience=["notes"]).token
    )


def test_every_program_is_run():
    assert PROGRAMS.keys() == {*HTTP, "gRPC"}


@pytest.mark.parametrize("name", HTTP)
def test_a_program_gets_the_answer_of_a_guarded_server(name, capsys):
    with serving.wsgi(loaded("Flask").app) as url:
        exec(PROGRAMS[name], {"URL": url})
    assert capsys.readouterr().out == "desk\n"


def test_the_grpc_program_gets_the_answer_of_a_guarded_server(capsys):
    server = loaded("gRPC").server
    port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    server.start()
    try:
        exec(PROGRAMS["gRPC"], {"TARGET": f"127.0.0.1:{port}"})
    finally:
        server.stop(None).wait()
    assert capsys.readouterr().out == "desk\n"


def shell(command: str) -> str:
    return subprocess.run(
        ["bash", "-c", command],
        env=os.environ | {"PATH": PATH},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def console(command: str) -> tuple[str, str]:
    """The command of the document that begins so, and what it prints."""
    (found,) = re.findall(rf"^\$ ({re.escape(command)}.*)\n((?:(?!```).*\n)*)", DOCUMENT, re.M)
    return found


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@needs_curl
def test_curl_gets_the_answer_of_a_guarded_server():
    command, printed = console("agentctl token --header ")
    with serving.wsgi(loaded("Flask").app) as url:
        assert shell(command.replace("http://127.0.0.1:8000", url)) + "\n" == printed
        assert shell(f'curl -sS -H @<(agentctl token --header) "{url}"') + "\n" == printed


@needs_curl
def test_curl_follows_redirects_elsewhere_without_the_token(agent):
    command, _ = console("agentctl token --header ")
    with recording() as other, recording(lambda request: Answer(302, f"{other.url}/there")) as server:
        shell(command.replace("-sS", "-sSL").replace("http://127.0.0.1:8000", server.url))
        assert server.tokens == [Path(agent.token_path).read_text().strip()]
        assert other.tokens == [None]


def test_headers_as_json_have_the_form_that_is_shown(agent):
    command, printed = console("agentctl token --headers-json")
    token = Path(agent.token_path).read_text().strip()
    assert shell(command) == printed.replace("v4.local....", token)
