"""The programs of docs/guarding.md, served and called as they stand there."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import httpx
import pytest

from agentd.testing import TestAgent

from . import serving
from .calling_grpc import STATUSES, code
from .calling_mcp import called
from .table import EXPECTED, statuses

DOCUMENT = (Path(__file__).parents[2] / "docs" / "guarding.md").read_text()
PROGRAMS: dict[str, str] = dict(
    re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```", DOCUMENT, re.M | re.S)
)

SERVERS: dict[str, Callable[[Any], AbstractContextManager[str]]] = {
    "ASGI": serving.asgi,
    "Starlette": serving.asgi,
    "FastAPI": serving.asgi,
    "WSGI": serving.wsgi,
    "Flask": serving.wsgi,
    "aiohttp": serving.aiohttp,
}
"""What serves the `app` of each program over HTTP; a program of another protocol has a test of its own."""

DJANGO = ["Django", "Django REST framework"]
"""What is served in a process of its own, because a process has one Django project."""


def loaded(name: str) -> ModuleType:
    """The program as a module: frameworks look up annotations in one."""
    program = ModuleType("program")
    exec(compile(PROGRAMS[name], f"docs/guarding.md {name}", "exec"), program.__dict__)
    return program


def test_every_program_is_run():
    assert PROGRAMS.keys() == {*SERVERS, *DJANGO, "gRPC", "MCP", "Jupyter Server"}


def answers_as_every_guarded_server_does(agent: TestAgent, url: str) -> bool:
    with httpx.Client() as http:

        def request(token: str | None) -> int:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            return http.get(url, headers=headers).status_code

        assert statuses(agent, request) == EXPECTED
        desk = agent.create_token(label="desk", scopes=["read"], audience=["notes"]).token
        return "desk" in http.get(url, headers={"Authorization": f"Bearer {desk}"}).text


@pytest.mark.parametrize("name", SERVERS)
def test_a_program_answers_as_every_guarded_server_does(agent, name):
    with SERVERS[name](loaded(name).app) as url:
        assert answers_as_every_guarded_server_does(agent, url)


@pytest.mark.parametrize("name", DJANGO)
def test_a_program_of_django_answers_as_every_guarded_server_does(agent, name, tmp_path):
    with serving.wsgi_program(PROGRAMS[name], tmp_path) as url:
        assert answers_as_every_guarded_server_does(agent, url)


def test_a_jupyter_server_answers_as_every_guarded_server_does(agent, tmp_path):
    with serving.jupyter(PROGRAMS["Jupyter Server"], tmp_path) as url:
        assert answers_as_every_guarded_server_does(agent, f"{url}/api/me")


def test_the_grpc_program_answers_as_every_guarded_server_does(agent, tmp_path):
    server = loaded("gRPC").server
    server.add_insecure_port(address := f"unix:{tmp_path}/grpc.sock")
    server.start()
    try:
        with grpc.insecure_channel(address) as channel:

            def request(token: str | None) -> int:
                return STATUSES[code(channel, "/Notes/Read", token)]

            assert statuses(agent, request) == EXPECTED
    finally:
        server.stop(None).wait()


def test_the_mcp_program_answers_as_every_guarded_server_does(agent):
    with serving.asgi(loaded("MCP").app) as url:
        assert statuses(agent, lambda token: called(url, token)[0]) == EXPECTED
        desk = agent.create_token(label="desk", scopes=["read"], audience=["notes"]).token
        assert called(url, desk) == (200, {"result": "desk"})
