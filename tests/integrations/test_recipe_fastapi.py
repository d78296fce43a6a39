"""docs/recipes/fastapi.md, as it stands there."""

from __future__ import annotations

import sys

import httpx
import pytest

from . import recipes, serving
from .table import EXPECTED, statuses

PAGE = "fastapi.md"
ADDRESS = "http://127.0.0.1:8000"
SERVE = [sys.executable, "-m", "uvicorn", "notes_server:app", "--port", "0"]


@pytest.fixture
def url(agent, tmp_path):
    recipes.write_files(PAGE, tmp_path)
    with serving.started(SERVE, tmp_path, r"running on (http://\S+)") as url:
        yield url


def test_the_recipe_runs(agent, url, tmp_path):
    shown = recipes.transcript(PAGE)
    assert recipes.carried_out(shown, tmp_path, (ADDRESS, url)) == shown
    recipes.carried_out("$ agentctl login\n", tmp_path, ("", ""))
    for away in (agent.lock, agent.stop):
        away()
        printed = recipes.carried_out(f"$ python notes.py {ADDRESS}\n?\n", tmp_path, (ADDRESS, url))
        assert " 503 " in printed.replace("\n", " ")


def test_its_server_answers_as_every_guarded_server_does(agent, url):
    with httpx.Client(base_url=url) as http:

        def request(token: str | None) -> int:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            return http.get("/notes", headers=headers).status_code

        assert statuses(agent, request) == EXPECTED
