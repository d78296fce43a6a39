"""What only a real terminal, a real pipe and a real signal show."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from agentd_client.cli.output import whole_output
from agentd_client.cli.run import run
from agentd_client.errors import AgentTimeoutError
from tests.agentctl.running import COMMAND, on_terminal, process, without_coverage

QUESTION = b"[y/N]: "


def test_reset_key_asks_on_a_terminal_and_does_it_on_yes(agent, logged_in):
    ended = on_terminal("reset-key", asked=QUESTION, typed=b"y\n")
    assert ended.code == 0
    assert "End every session of this agent? [y/N]" in ended.shown
    assert agent.methods == ["resetKey"]


def test_reset_key_changes_nothing_on_no(agent, logged_in):
    ended = on_terminal("reset-key", asked=QUESTION, typed=b"n\n")
    assert ended.code == 1
    assert "nothing was changed" in ended.shown
    assert agent.calls == []


def test_reset_key_changes_nothing_where_the_answer_is_the_end_of_input(agent):
    assert on_terminal("reset-key", asked=QUESTION, typed=b"\x04").code == 130
    assert agent.calls == []


def test_a_token_typed_on_a_terminal_is_asked_for(agent, logged_in):
    ended = on_terminal("verify", "-", asked=b"Token: ", typed=logged_in.encode() + b"\n", NO_COLOR="1")
    assert ended.code == 0
    assert logged_in not in ended.shown, "what is typed is not shown"
    assert 'valid: session session-1, label "desk"' in ended.shown


def test_a_token_is_not_shown_on_a_terminal(agent, logged_in):
    refused = on_terminal("token")
    assert refused.code == 64
    assert logged_in not in refused.shown
    assert on_terminal("token", "--show").shown == logged_in + "\n"


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def environ(request):
    return os.environ | {"PYTHONUNBUFFERED": request.param}


@pytest.mark.parametrize(
    ("args", "code"),
    [(["verify"], 0), (["verify", "-"], 1), (["status"], 0), (["--help"], 0), (["--version"], 0)],
)
def test_a_pipe_that_nobody_reads_changes_nothing_about_the_code(agent, logged_in, environ, args, code):
    ours, theirs = os.pipe()
    os.close(ours)
    with subprocess.Popen(
        [*COMMAND, *args],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=environ,
    ) as child:
        os.close(theirs)
        assert child.stderr.read() == b""
        assert child.wait(60) == code


@pytest.mark.parametrize("args", [["status"], ["list"], ["completion", "fish"], ["--help"]])
def test_a_reader_that_has_seen_enough_does_not_make_it_fail(agent, logged_in, args):
    # The reader goes away after the first line: whatever is written afterwards meets nobody.
    script = 'set -o pipefail; for i in 1 2 3; do "$@" | grep -q . || exit; done'
    assert (
        subprocess.run(["bash", "-c", script, "bash", *COMMAND, *args], timeout=60, check=False).returncode
        == 0
    )


@pytest.mark.parametrize("args", [["status"], ["list"], ["--help"]])
def test_a_result_is_written_whole(agent, logged_in, monkeypatch, args):
    written = []
    monkeypatch.setattr(
        os, "write", lambda descriptor, content: written.append(bytes(content)) or len(content)
    )
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        assert run(args) == 0
    assert len(written) == 1
    assert written[0].count(b"\n") >= 1


def test_what_a_pipe_takes_in_parts_or_later_arrives_whole():
    ours, theirs = os.pipe2(os.O_NONBLOCK)
    text = "x" * 300_000
    got = bytearray()

    def read() -> None:
        os.set_blocking(ours, True)  # of this end alone
        while data := os.read(ours, 4096):
            got.extend(data)

    reader = threading.Thread(target=read)
    with open(theirs, "w") as stream, contextlib.redirect_stdout(stream), whole_output():
        print(text)
        reader.start()
    reader.join()
    os.close(ours)
    assert got.decode() == text + "\n"


@pytest.mark.parametrize(("args", "code"), [(["verify", "--frob"], 64), (["verify", "-"], 1), ([], 64)])
def test_standard_error_that_cannot_be_written_does_not_change_the_code(agent, args, code):
    for mode in ("/dev/full", None):
        if mode is None:
            ours, theirs = os.pipe()
            os.close(ours)
        else:
            theirs = os.open(mode, os.O_WRONLY)
        with open(theirs, "wb") as broken:
            ended = subprocess.run(
                [*COMMAND, *args],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=broken,
                timeout=60,
                check=False,
            )
        assert ended.returncode == code


@pytest.mark.parametrize("args", [["token"], ["status"], ["--help"], ["--version"], ["completion", "bash"]])
def test_a_full_disk_under_the_output_is_an_error_in_one_line(agent, logged_in, environ, args):
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [*COMMAND, *args],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environ,
            text=True,
            timeout=60,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (
        74,
        "agentctl: standard output: No space left on device\n",
    )


def test_streams_that_the_shell_closed_are_no_fault(agent, logged_in):
    def closed(command: str) -> tuple[int, str]:
        script = f'"$@" {command}'
        ended = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *COMMAND],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return ended.returncode, ended.stdout + ended.stderr

    assert closed("verify >&-") == (0, "")
    assert closed("verify - <&-") == (1, "invalid MALFORMED\n")
    assert closed("reset-key <&- 2>&-") == (64, "")
    assert closed("verify --socket '' 2>&-") == (64, "")
    agent.refuse("verifyToken", AgentTimeoutError("not now"))
    code, err = closed("verify >&-")
    assert (code, err.splitlines()[0]) == (75, "agentctl: not now")


def test_ctrl_c_ends_it_quietly(agent, logged_in):
    asked, let_go = threading.Event(), threading.Event()

    def hang(params):
        asked.set()
        let_go.wait(60)
        return agent._verifyToken(params)

    agent.script["verifyToken"] = hang
    with subprocess.Popen(
        [*COMMAND, "--timeout", "60", "verify"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=without_coverage(),
    ) as child:
        assert asked.wait(60)
        child.send_signal(signal.SIGINT)
        let_go.set()  # it may have come just before the wait, which then would last: the answer ends it
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (-signal.SIGINT, b"", b"")


MODULES = [
    "click",
    "msgpack",
    "agentd_client.cli.run",
    "agentd_client.blocking",
    "agentd_client.cli.commands.login",
]


@pytest.mark.parametrize("module", MODULES)
def test_ctrl_c_while_it_imports_is_quiet_and_ends_it(agent, token_file, module):
    # Raised in an import, KeyboardInterrupt prints a traceback; raised in a callback of it, it is dropped.
    program = f"""
import os, signal, sys
from agentd_client import cli

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000): pass
            except KeyboardInterrupt:
                print("dropped", file=sys.stderr)

sys.meta_path.insert(0, Finder())
sys.argv = ["agentctl", "login"]
cli.main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=False, env=without_coverage(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, b"", b"")
    assert not token_file.exists()


INTERRUPTED = """
import os, signal, sys
from agentd_client import cli
from agentd_client.blocking import Client
create_token = Client.create_token

def interrupted(self, **arguments):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass
    except KeyboardInterrupt:
        pass
    return create_token(self, **arguments)

Client.create_token = interrupted
sys.argv = ["agentctl", "login"]
cli.main()
"""


@pytest.mark.parametrize(("ignored", "code"), [(False, -signal.SIGINT), (True, 0)])
def test_a_ctrl_c_that_some_code_dropped_still_ends_it_and_one_that_is_ignored_stays_so(
    agent, token_file, ignored, code
):
    before = signal.SIG_IGN if ignored else signal.default_int_handler
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=False,
        env=without_coverage(), preexec_fn=lambda: signal.signal(signal.SIGINT, before),
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (code, "")
    assert "tokenFile" in ended.stdout, "what was done is said"
    assert token_file.exists()


def test_ctrl_c_at_a_question_changes_nothing_and_ends_its_line(agent):
    ended = on_terminal("reset-key", asked=QUESTION, interrupted=True)
    assert ended.code == -signal.SIGINT
    assert ended.shown == "End every session of this agent? [y/N]: \n"
    assert agent.calls == []


def test_an_agent_that_never_answers_is_a_timeout(agent, logged_in):
    let_go = threading.Event()

    def hang(params):
        let_go.wait(60)
        return agent._verifyToken(params)

    agent.script["verifyToken"] = hang
    ended = process("--timeout", "0.1", "verify")
    let_go.set()
    assert (ended.returncode, ended.stdout) == (75, "")
    assert "--timeout" in ended.stderr
