"""Sessions that a person grants: programs that ask, and terminals that answer, with the real agent."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentd_client import Client
from agentd_client.protocol.results import REQUESTED, WITHDRAWN
from tests.agentctl.running import COMMAND, in_conversation
from tests.e2e.daemon import START_SECONDS, serving
from tests.e2e.locked import PASSPHRASE, protect, unlocked

QUESTION = b"Approve? [y]es, [n]o, [s]kip: "
TYPED = PASSPHRASE.encode() + b"\n"


class Events:
    """What the agent tells, so that a test waits for what happens and not for a time."""

    def __init__(self, events: Iterator[object]) -> None:
        self._events = events

    def next(self, kind: str):
        return next(event for event in self._events if event.kind == kind)


@pytest.fixture
def configure(home):
    def configure(text: str) -> None:
        config = home.path / "config" / "agentd" / "config.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(text)

    return configure


@pytest.fixture
def listening():
    @contextmanager
    def listening(daemon):
        with daemon.client() as agent, agent.subscribe() as events:
            yield Events(iter(events))

    return listening


@contextmanager
def requesting(home, *args: str, **environ: str):
    """`agentctl request` as a process of its own."""
    with subprocess.Popen(
        [*COMMAND, "request", "--timeout", "30", *args],
        env=home.environ | environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        yield child
        child.kill()


def on_terminal(home, *args: str, answers):
    """A command on a terminal of its own."""
    return in_conversation(*args, "--timeout", "30", answers=answers, **home.environ, NO_COLOR="1")


def sessions(daemon):
    with daemon.client() as agent:
        return agent.list_sessions().sessions


def test_it_is_shown_on_another_terminal_granted_in_part_used_and_ends_with_its_process(
    home, daemon, listening
):
    script = (
        f"{sys.executable} -m agentd_client.cli verify --scope read --timeout 30 && "
        f"{sys.executable} -m agentd_client.cli verify --scope deploy --timeout 30; read -r line"
    )
    asked = ["--scope", "read", "--scope", "deploy", "--ttl", "10m", "--reason", "release 2.4"]
    reading, writing = os.pipe()
    with listening(daemon) as events, subprocess.Popen(
        [*COMMAND, "request", "--timeout", "30", *asked, "--", "sh", "-c", script],
        env=home.environ, stdin=reading, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        os.close(reading)
        events.next(REQUESTED)
        # `approve` has no option for what cannot be seen beforehand: the request is read from the screen.
        shown = on_terminal(home, "approve", answers=[(QUESTION, b"s\n")]).shown
        assert re.search(r'^says +"release 2\.4"$', shown, re.MULTILINE)
        assert re.search(rf"^process +{child.pid}$", shown, re.MULTILINE)
        assert re.search(r"^scopes +read, deploy$", shown, re.MULTILINE)
        ended = on_terminal(home, "approve", "--scope", "read", "--ttl", "5m", answers=[(QUESTION, b"y\n")])
        assert ended.code == 0, ended.shown
        assert child.stdout.readline() == "valid\n"
        assert child.stdout.readline() == "invalid MISSING_SCOPE\n"
        (session,) = sessions(daemon)
        assert (session.scopes, session.bound_pid) == (["read"], child.pid)
        assert session.expires_at - session.created_at == pytest.approx(300, abs=1)
        os.close(writing)
        child.wait(START_SECONDS)
        events.next("revoked")
    assert sessions(daemon) == []


def test_the_token_goes_to_whoever_asked_and_the_log_says_who_decided(home, daemon, listening):
    with listening(daemon) as events, requesting(home, "--scope", "read", "--label", "nightly") as child:
        request_id = events.next(REQUESTED).request_id
        approved = home.agentctl("approve", request_id[:4], "--yes", "--json")
        assert approved.returncode == 0, approved.stderr
        out, err = child.communicate(timeout=START_SECONDS)
    assert child.returncode == 0
    assert f"waiting for approval of request {request_id}" in err
    assert home.agentctl("verify", "-", "--scope", "read", input=out).returncode == 0
    (session,) = sessions(daemon)
    assert json.loads(approved.stdout)["sessionId"] == session.id
    entries = json.loads(home.agentctl("audit", "--json").stdout)["entries"]
    (entry,) = [entry for entry in entries if entry["kind"] == "approved"]
    assert entry["requestId"] == request_id
    assert entry["askedBy"]["pid"] == child.pid
    assert entry["peerPid"] != child.pid


def test_a_no_is_an_error_of_its_own(home, daemon, listening):
    with listening(daemon) as events, requesting(home, "--", "true") as child:
        request_id = events.next(REQUESTED).request_id
        ended = on_terminal(home, "approve", request_id, answers=[(QUESTION, b"n\n")])
        assert (ended.code, child.wait(START_SECONDS)) == (1, 77)
    assert sessions(daemon) == []


def test_ctrl_c_withdraws_it_and_so_does_the_end_of_its_process(home, daemon, listening):
    with listening(daemon) as events:
        for number in (signal.SIGINT, signal.SIGKILL):
            with requesting(home) as child:
                assert "waiting for approval" in child.stderr.readline()
                request_id = events.next(REQUESTED).request_id
                child.send_signal(number)
                assert child.wait(START_SECONDS) == -number
                assert events.next(WITHDRAWN).request_id == request_id
    assert home.agentctl("requests").stdout == ""


def test_an_asker_that_ends_while_a_person_reads_gets_nothing(home, daemon, listening):
    with listening(daemon) as events, requesting(home) as child:
        request_id = events.next(REQUESTED).request_id

        def yes_too_late() -> bytes:
            child.kill()
            events.next(WITHDRAWN)
            return b"y\n"

        ended = on_terminal(home, "approve", request_id, answers=[(QUESTION, yes_too_late)])
    assert ended.code == 65
    assert f"request {request_id} is gone" in ended.shown
    assert sessions(daemon) == []


def test_of_two_terminals_one_decides(home, daemon, listening):
    with listening(daemon) as events, requesting(home) as child, ThreadPoolExecutor(1) as threads:
        request_id = events.next(REQUESTED).request_id

        def meanwhile() -> bytes:
            other = threads.submit(on_terminal, home, "approve", answers=[(QUESTION, b"y\n")])
            assert other.result(START_SECONDS).code == 0
            return b"n\n"

        late = on_terminal(home, "approve", request_id, answers=[(QUESTION, meanwhile)])
        assert child.wait(START_SECONDS) == 0
    assert late.code == 65
    assert len(sessions(daemon)) == 1


def test_a_program_does_not_approve_what_it_asked_for(home, daemon, listening):
    with listening(daemon) as events, daemon.client() as asker, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(asker.request_token)
        request_id = events.next(REQUESTED).request_id
        ended = home.agentctl("approve", request_id, "--yes")
        assert ended.returncode == 77
        assert "another terminal" in ended.stderr
        assert home.agentctl("deny", request_id).returncode == 0
        assert type(asked.exception(START_SECONDS)).__name__ == "RequestDeniedError"


ASKER = """
import sys
from agentd_client import AgentdError, Client
with Client.connect(timeout=30) as agent:
    for line in sys.stdin:
        try:
            print(agent.request_token(300, scopes=["read"]).id, flush=True)
        except AgentdError as error:
            print(error.code, flush=True)
"""


def test_an_approval_that_is_remembered_asks_nobody_until_it_is_forgotten(home, daemon, listening):
    with listening(daemon) as events, subprocess.Popen(
        [sys.executable, "-c", ASKER], env=home.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:  # fmt: skip

        def ask() -> None:
            child.stdin.write("again\n")
            child.stdin.flush()

        ask()
        request_id = events.next(REQUESTED).request_id
        assert home.agentctl("approve", request_id, "--yes", "--remember", "1h").returncode == 0
        first = child.stdout.readline()
        ask()
        assert child.stdout.readline() != first, "another session, and nobody was asked"
        assert home.agentctl("requests").stdout.split("\t")[:2] == [request_id, "remembered"]
        assert home.agentctl("deny", request_id).returncode == 0
        assert home.agentctl("requests").stdout == ""
        ask()
        assert home.agentctl("deny", events.next(REQUESTED).request_id).returncode == 0
        assert child.stdout.readline() == "DENIED\n"
        child.stdin.close()


def test_under_ask_login_waits_for_another_terminal(home, configure, listening):
    configure('opening = "ask"\n')
    with serving(home) as daemon, listening(daemon) as events, ThreadPoolExecutor(1) as threads:
        assert "opening     ask: " in on_terminal(home, "status", answers=[]).shown
        login = threads.submit(on_terminal, home, "login", answers=[])
        request_id = events.next(REQUESTED).request_id
        ended = on_terminal(home, "approve", answers=[(QUESTION, b"y\n")])
        assert ended.code == 0
        assert "says" in ended.shown
        assert '"agentctl login"' in ended.shown
        done = login.result(START_SECONDS)
        assert done.code == 0
        assert f"`agentctl approve {request_id}` on another terminal" in done.shown
        assert home.agentctl("verify").returncode == 0
        assert home.agentctl("exec", "--", "true").returncode == 0, "children need no approval"


def test_under_passphrase_whoever_knows_it_logs_in_and_approves(home, configure, listening):
    configure('opening = "passphrase"\n')
    protect(home)
    with unlocked(home) as daemon, listening(daemon) as events:
        done = on_terminal(home, "login", answers=[(b"to log in: ", TYPED)])
        assert done.code == 0, done.shown
        assert events.next(REQUESTED).request_id, "its own"
        assert home.agentctl("verify").returncode == 0
        with requesting(home, "--scope", "read") as child:
            request_id = events.next(REQUESTED).request_id
            asked = f"to approve {request_id}: ".encode()
            answers = [(QUESTION, b"y\n"), (asked, b"wrong\n"), (asked, TYPED)]
            ended = on_terminal(home, "approve", "--timeout", "60", answers=answers)
            assert ended.code == 0, ended.shown
            assert child.wait(START_SECONDS) == 0
        assert PASSPHRASE not in ended.shown + done.shown


def test_the_ask_socket_is_for_asking_and_the_owner_answers(home, configure, listening):
    with tempfile.TemporaryDirectory(prefix="agentd-ask-") as folder:
        path = str(Path(folder) / "ask.sock")
        configure(f'ask_socket_path = "{path}"\n')
        with serving(home) as daemon, listening(daemon) as events:
            with requesting(home, "--scope", "read", AGENTD_SOCKET=path) as child:
                request_id = events.next(REQUESTED).request_id
                refused = home.agentctl("approve", request_id, "--yes", AGENTD_SOCKET=path)
                assert refused.returncode == 76
                ended = on_terminal(home, "approve", answers=[(QUESTION, b"y\n")])
                assert ended.code == 0
                assert "the ask socket, which others can reach" in ended.shown
                out, _ = child.communicate(timeout=START_SECONDS)
            assert home.agentctl("verify", "-", "--scope", "read", input=out).returncode == 0
            with Client.connect(path, timeout=START_SECONDS) as at_ask_socket:
                assert at_ask_socket.verify_token(out.strip(), scopes=["read"])
