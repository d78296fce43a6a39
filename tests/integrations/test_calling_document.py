"""The programs of docs/calling.md call the servers of docs/guarding.md."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest

from agentd_client import Session

from . import serving
from .test_guarding_document import loaded

DOCUMENT = (Path(__file__).parents[2] / "docs" / "calling.md").read_text()
PROGRAMS: dict[str, str] = dict(
    re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```", DOCUMENT, re.M | re.S)
)
HTTP = ["httpx", "requests", "aiohttp"]


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
