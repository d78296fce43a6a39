"""A program in a sandbox that sees the ask socket and nothing else of the agent, with the real bubblewrap."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentd_client import Client, RequestInfo
from tests.e2e.daemon import START_SECONDS, Home, serving

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "operations.md"
ASK = """
import sys
from agentd_client import AgentdError, Client
with Client.connect(timeout=60, patience=0) as agent:
    try:
        granted = agent.request_token(
            600, scopes=["read", "write"], reason="to index the notes", bound=True,
            wait=float(sys.argv[1]) if len(sys.argv) > 1 else None,
        )
    except AgentdError as error:
        print(error.code, flush=True)
    else:
        print(granted.token, flush=True)
        print(*agent.judge_token(granted.token, scopes=["read"]), flush=True)
        print(*agent.judge_token(granted.token, scopes=["write"]), flush=True)
        sys.stdin.read()
"""
# A process of its own, as on another terminal: the tests start the program, so they cannot approve what it asks for.
DECIDE = """
import sys
from agentd_client import Client
with Client.connect(sys.argv[1], timeout=60, patience=0) as agent:
    agent.decide_request(sys.argv[2], sys.argv[3], **eval(sys.argv[4]))
"""


@pytest.fixture
def owner(home):
    """A client, at the agent's own socket, of an agent that has an ask socket too."""
    folder = home.runtime / "agentd-ask"
    folder.mkdir(mode=0o700)
    config = home.path / "config" / "agentd" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'ask_socket_path = "{folder}/ask.sock"\nopening = "ask"\n')
    with serving(home) as daemon, daemon.client() as client:
        yield client


def sandbox() -> str:
    """The command line of docs/operations.md up to the program, with the Python and the modules of the tests."""
    found = re.search(r"^env -i /usr/bin/bwrap .*?(?=agentctl request )", OPERATIONS.read_text(), re.M | re.S)
    installed = '"$HOME/.local/share/agentd/venv"'
    line = f"    --ro-bind {installed} {installed} \\\n"
    assert found is not None
    assert line in found[0]
    paths = map(shlex.quote, dict.fromkeys((sys.base_prefix, sys.prefix, str(ROOT))))
    return found[0].replace(line, "".join(f"--ro-bind {path} {path} \\\n" for path in paths))


@contextmanager
def sandboxed(home: Home, *command: str) -> Iterator[subprocess.Popen[str]]:
    if not os.path.exists("/usr/bin/bwrap"):
        pytest.skip("bubblewrap is not installed")
    folder = home.path / "app"
    folder.mkdir()
    begin = ["sh", "-c", f'exec {sandbox()} "$@"', "sh"]
    trial = subprocess.run(
        [*begin, "true"], env=home.environ, cwd=folder, capture_output=True, text=True, check=False
    )
    if trial.returncode:
        pytest.skip(f"no sandbox is to be had here: {trial.stderr.strip()}")
    with subprocess.Popen(
        [*begin, *command],
        env=home.environ,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def asking(home: Home, *more: str):
    return sandboxed(home, sys.executable, "-c", ASK, *more)


def shown(owner: Client) -> RequestInfo:
    """The request that waits, as soon as there is one."""
    while not (waiting := owner.list_requests().requests):
        pass
    (request,) = waiting
    return request


def decide(home: Home, request: RequestInfo, decision: str, **granting: object) -> None:
    command = [sys.executable, "-c", DECIDE, str(home.socket), request.id, decision, repr(granting)]
    subprocess.run(command, env=home.environ, timeout=START_SECONDS, check=True)


def kinds(owner: Client) -> list[str]:
    return [entry.kind for entry in owner.list_audit().entries]


def test_of_the_agent_it_sees_that_socket_only(home, owner):
    looking = f"ls /run /run/agentd-ask; ls -d {home.runtime} {home.path} 2>/dev/null; true"
    with sandboxed(home, "sh", "-c", looking) as program:
        printed, _ = program.communicate(timeout=START_SECONDS)
    assert printed.split() == ["/run:", "agentd-ask", "/run/agentd-ask:", "ask.sock", "ask.sock.lock"]


def test_what_it_asks_for_is_granted_with_less_used_and_ended_with_it(home, owner):
    with asking(home) as program:
        request = shown(owner)
        assert (request.socket, request.reason) == ("ask", "to index the notes")
        assert (request.scopes, request.expiry, request.bound) == (["read", "write"], 600, True)
        assert (request.asker.uid, os.path.realpath(request.asker.exe)) == (
            os.geteuid(),
            os.path.realpath(sys.executable),
        )
        assert "own PID namespace" in request.sandbox
        decide(home, request, "approve", scopes=["read"], expiry=60)
        token = program.stdout.readline().strip()
        assert program.stdout.readline() == "True None None ['read']\n"
        assert program.stdout.readline() == "False MISSING_SCOPE None None\n"
        assert owner.verify_token(token, scopes=["read"])
        program.stdin.close()
        program.wait(START_SECONDS)
    while owner.verify_token(token):
        pass
    assert owner.inspect_token(token).reason in ("REVOKED", "PROCESS_ENDED")


def test_agentctl_asks_there_and_hands_the_token_to_its_command(home, owner):
    asked = ["--scope", "read", "--ttl", "10m", "--reason", "to index the notes", "--timeout", "60"]
    index = "agentctl verify --timeout 60 --scope read && agentctl verify --timeout 60 --scope write; read -r line"
    environ = ["env", f"PATH={os.path.dirname(sys.executable)}:/usr/bin"]
    with sandboxed(home, *environ, "agentctl", "request", *asked, "--", "sh", "-c", index) as program:
        request = shown(owner)
        ended = home.agentctl("approve", request.id, "--yes", "--ttl", "1m")
        assert ended.returncode == 0, ended.stderr
        assert re.search(r'^says +"to index the notes"$', ended.stderr, re.MULTILINE)
        assert "own PID namespace" in ended.stderr
        assert program.stdout.readline() == "valid\n"
        assert program.stdout.readline() == "invalid MISSING_SCOPE\n"
        program.stdin.close()
        program.wait(START_SECONDS)
    while owner.get_status().sessions:
        pass


def test_a_denial_is_told_and_opens_nothing(home, owner):
    with asking(home) as program:
        decide(home, shown(owner), "deny")
        assert program.stdout.readline() == "DENIED\n"
    assert owner.get_status().sessions == 0


def test_no_answer_is_a_no(home, owner):
    with asking(home, "0") as program:
        assert program.stdout.readline() == "REQUEST_EXPIRED\n"
    assert owner.list_requests().requests == []
    assert owner.get_status().sessions == 0


def test_a_request_ends_with_the_program_that_waits_for_it(home, owner):
    with asking(home) as program:
        shown(owner)
        program.kill()
        program.wait(START_SECONDS)
        while owner.list_requests().requests:
            pass
    while "withdrawn" not in kinds(owner):  # the entry is written in the background
        pass
    assert owner.get_status().sessions == 0
