"""docs/recipes/fastapi.md, as it stands there."""

from __future__ import annotations

import sys

from . import recipes, serving

PAGE = "fastapi.md"
ADDRESS = "http://127.0.0.1:8000"
SERVE = [sys.executable, "-m", "uvicorn", "notes_server:app", "--port", "0"]


def test_the_recipe_runs(agent, tmp_path):
    recipes.write_files(PAGE, tmp_path)
    shown = recipes.transcript(PAGE)
    with serving.started(SERVE, tmp_path, r"running on (http://\S+)") as url:
        assert recipes.carried_out(shown, tmp_path, (ADDRESS, url)) == shown
        recipes.carried_out("$ agentctl login\n", tmp_path, ("", ""))
        for away in (agent.lock, agent.stop):
            away()
            printed = recipes.carried_out(f"$ python notes.py {ADDRESS}\n?\n", tmp_path, (ADDRESS, url))
            assert " 503 " in printed.replace("\n", " ")
