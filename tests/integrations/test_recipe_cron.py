"""docs/recipes/cron.md, as it stands there: what cron runs, in the environment that cron has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx
import pytest

from agentd.testing import TestAgent
from agentd_client.protocol.results import Event

from . import recipes, serving

PAGE = "cron.md"
TEXT = (recipes.RECIPES / PAGE).read_text()
SERVER = [sys.executable, "-m", "uvicorn", "notes_server:app", "--port", "0"]
LOGIN, RUN, SHOW, LOGOUT = re.findall(r"^\$ (.*)$", TEXT, re.M)
(SHOWN,) = re.findall(r"^\$ cat .*\n(.*\n)```", TEXT, re.M)


class Job:
    """A home directory with the page's files, and the command of its crontab."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.notes = home / "notes"
        recipes.write_files(PAGE, self.notes)
        script = self.notes / "backup.py"
        script.write_text(script.read_text().replace("http://127.0.0.1:8000", url))
        (self.notes / ".venv").symlink_to(sys.prefix)
        (crontab,) = re.findall(r"```crontab\n(.*?)```", TEXT, re.S)
        mine = crontab.replace("/home/me", str(home))
        self._variables = dict(re.findall(r"^(\w+)=(.*)$", mine, re.M))
        (self._command,) = re.findall(r"^17 3 \* \* \*\s+(.*)$", mine, re.M)

    def run(self) -> subprocess.CompletedProcess[str]:
        """What cron(8) does: crontab(5) lists what it sets, and nothing else is there."""
        defaults = {"HOME": str(self.home), "LOGNAME": "me", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
        return self._shell(self._command, defaults | self._variables)

    def typed(self, command: str) -> subprocess.CompletedProcess[str]:
        """A command of the page, in the user's own shell."""
        return self._shell(command, os.environ | {"HOME": str(self.home), "PATH": serving.PATH})

    def _shell(self, command: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.home,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def skip_if_this_user_has_a_runtime_folder() -> None:
    if os.path.exists(runtime := f"/run/user/{os.geteuid()}"):
        pytest.skip(f"{runtime} exists, and the test's agent is not there")


@pytest.fixture
def job(agent: TestAgent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    skip_if_this_user_has_a_runtime_folder()
    home = tmp_path_factory.mktemp("h")  # short: a socket's path has 107 bytes
    (home / "notes").mkdir()
    (home / ".local" / "state").mkdir(parents=True)
    (home / ".local" / "state" / "agentd").symlink_to(Path(agent.socket_path).parents[1])
    recipes.write_files("fastapi.md", home / "notes")
    with serving.started(SERVER, home / "notes", r"running on (http://\S+)") as url:
        writer = agent.create_token(scopes=["write"], audience=["notes"], label="desk").token
        written = httpx.post(f"{url}/notes", json="buy milk", headers={"Authorization": f"Bearer {writer}"})
        assert written.status_code == 200
        yield Job(home, url)
    skip_if_this_user_has_a_runtime_folder()


def events_until_revoked(events: Iterable[Event]) -> Iterator[Event]:
    """The agent ends a run's session when it notices that the process has ended."""
    for event in events:
        yield event
        if event.kind == "revoked":
            return


def test_the_job_reads_the_notes_in_crons_environment(agent, job):
    assert job.run().returncode == 1  # nobody has logged in

    assert job.typed(LOGIN).returncode == 0
    with agent.client.subscribe() as events:
        ended = job.run()
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
        (run,) = {event.session_id for event in events_until_revoked(events) if event.kind == "created"}
    assert not agent.client.inspect_token(id=run).valid
    assert (job.notes / "notes.json").read_text() == SHOWN
    for command, printed in ((RUN, ""), (SHOW, SHOWN)):
        typed = job.typed(command)
        assert (typed.returncode, typed.stdout, typed.stderr) == (0, printed, "")

    narrow = agent.client.list_sessions(label="backup").sessions[0]
    assert (narrow.scopes, narrow.audience, narrow.generation) == (["read"], ["notes"], 2)

    assert job.typed(LOGOUT).returncode == 0
    refused = job.run()
    assert refused.returncode == 1
    assert "not logged in" in refused.stderr


def test_a_run_without_an_answer_fails_and_keeps_the_last_notes(agent, job):
    assert job.typed(LOGIN).returncode == 0
    assert job.run().returncode == 0
    for away in (agent.lock, agent.stop):
        away()
        ended = job.run()
        assert ended.returncode == 69
        assert ended.stderr.startswith("agentctl: ")
    assert (job.notes / "notes.json").read_text() == SHOWN


def test_the_session_ends_if_the_job_does_not_run(agent, job):
    assert job.typed(LOGIN).returncode == 0
    for _ in range(3):
        agent.advance(2 * 86_400)
        assert job.run().returncode == 0
    agent.advance(3 * 86_400 + 2)
    assert job.run().returncode == 77
