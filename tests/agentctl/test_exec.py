from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentd_client.errors import NotWithinParentError, StoreError
from tests.agentctl.running import COMMAND, in_process, on_terminal, process

SEEN = """
import json, os
fd = os.environ.get("AGENTD_TOKEN_FD")
path = os.environ.get("AGENTD_SESSION_TOKEN_PATH")
print(json.dumps({
    "pid": os.getpid(),
    "variables": {name: value for name, value in os.environ.items() if name.startswith("AGENTD_")},
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")),
    "in_fd": fd and os.pread(int(fd), 100, 0).decode(),
    "in_file": path and open(path).read(),
}))
"""
LOOK = [sys.executable, "-S", "-c", SEEN]


@pytest.fixture(autouse=True)
def somewhere_else(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def look(*args: str, **environ: str):
    """What a command sees, and the process that `agentctl` was."""
    with subprocess.Popen(
        [*COMMAND, "exec", *args, "--", *LOOK],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environ,
        text=True,
    ) as child:
        out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    seen = json.loads(out)
    assert seen["pid"] == child.pid, "agentctl has become the command"
    return seen


def only_child(agent, parent):
    ((token, session),) = [(token, found) for token, found in agent.sessions.items() if token != parent]
    return token, session


def test_by_descriptor_it_is_in_memory_and_not_in_the_environment(agent, logged_in):
    seen = look("--fd")
    token, session = only_child(agent, logged_in)
    assert seen["in_fd"] == token + "\n"
    assert list(seen["variables"]) == ["AGENTD_TOKEN_FD"]
    assert token not in json.dumps(seen["variables"])
    assert seen["descriptors"] == [0, 1, 2, int(seen["variables"]["AGENTD_TOKEN_FD"])]
    assert (session.parent, session.bound_pid) == ("session-1", seen["pid"])


@pytest.mark.parametrize("way", [[], ["--file"]])
def test_by_default_it_is_in_a_private_file_named_by_process_and_session(agent, logged_in, folder, way):
    seen = look(*way)
    token, session = only_child(agent, logged_in)
    path = folder / "exec" / f"{seen['pid']}-{session.id}"
    assert seen["variables"] == {"AGENTD_SESSION_TOKEN_PATH": str(path)}
    assert seen["in_file"] == token + "\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_files_of_processes_that_are_gone_are_cleaned_and_no_others(agent, logged_in, folder):
    first = look("--file")
    gone = Path(first["variables"]["AGENTD_SESSION_TOKEN_PATH"])
    beside = [gone.with_name(gone.name + ".lock"), gone.with_name(f".{gone.name}.new")]
    others = [gone.with_name("notes"), gone.with_name(f"{os.getpid()}-session-9")]
    for path in beside + others:
        path.touch()
    look("--fd")
    assert gone.exists(), "only who makes a file looks at them"
    second = Path(look("--file")["variables"]["AGENTD_SESSION_TOKEN_PATH"])
    assert sorted(gone.parent.iterdir()) == sorted([second, *others])


def test_by_environment_it_is_in_the_variable(agent, logged_in):
    seen = look("--env")
    token, _ = only_child(agent, logged_in)
    assert seen["variables"] == {"AGENTD_TOKEN": token}


@pytest.mark.parametrize("way", ["--fd", "--file", "--env"])
def test_the_command_sees_its_session_alone_and_agentctl_finds_it(agent, logged_in, way, monkeypatch):
    monkeypatch.setenv("AGENTD_TOKEN", logged_in)
    monkeypatch.setenv("AGENTD_TOKEN_FD", "987654")
    monkeypatch.setenv("AGENTD_SESSION_TOKEN_PATH", "/nowhere")
    assert len(look(way)["variables"]) == 1
    for command in (["verify"], ["status"], ["inspect"]):
        ended = process("exec", way, "--label", "inner", "--", *COMMAND, "--json", *command)
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["session"]["label"] == "inner"


@pytest.mark.parametrize("way", ["--fd", "--file", "--env"])
def test_a_session_can_be_narrowed_further_inside(agent, logged_in, way):
    ended = process("exec", way, "--", *COMMAND, "exec", way, "--", *COMMAND, "inspect", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["session"]["parent"] == "session-2"


@pytest.mark.parametrize("way", ["--fd", "--file", "--env"])
@pytest.mark.parametrize("outer", ["--fd", "--file", "--env"])
def test_a_command_inherits_its_own_token_and_no_wider_one(agent, logged_in, outer, way):
    ended = process("exec", "--label", "wide", outer, "--", *COMMAND, "exec", way, "--", *LOOK)
    assert ended.returncode == 0, ended.stderr
    seen = json.loads(ended.stdout)
    own = [int(seen["variables"]["AGENTD_TOKEN_FD"])] if way == "--fd" else []
    assert seen["descriptors"] == [0, 1, 2, *own]
    assert len(seen["variables"]) == 1
    wide = next(token for token, session in agent.sessions.items() if session.label == "wide")
    assert wide not in json.dumps(seen)


def test_a_token_on_another_number_or_in_an_open_file_is_not_inherited_either(agent, logged_in, token_file):
    inner = [*COMMAND, "exec", "--fd", "--", *LOOK]
    script = f'exec 5<&"$AGENTD_TOKEN_FD" 6<{token_file} 7</dev/null; exec "$@"'
    # bash: not every sh duplicates a descriptor with two digits.
    ended = process("exec", "--fd", "--", "bash", "-c", script, "bash", *inner)
    assert ended.returncode == 0, ended.stderr
    seen = json.loads(ended.stdout)
    assert seen["descriptors"] == [0, 1, 2, 7, int(seen["variables"]["AGENTD_TOKEN_FD"])]


def test_a_token_on_standard_input_is_not_handed_on_and_that_is_said(agent, logged_in):
    script = 'exec "$@" <&"$AGENTD_TOKEN_FD"'
    ended = process("exec", "--fd", "--", "bash", "-c", script, "bash", *COMMAND, "exec", "--", "cat")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == (
        "agentctl: warning: standard input held a session token; the command only gets its own\n"
    )


def test_the_options_narrow_the_session(agent, logged_in):
    args = ["--scope", "a", "--scope", "b", "--audience", "ci", "--ttl", "20m", "--max-uses", "5"]
    look(*args, "--label", "mine")
    assert agent.calls == [
        (
            "createToken",
            {
                "expiry": 1200,
                "label": "mine",
                "audience": ["ci"],
                "scopes": ["a", "b"],
                "maxUses": 5,
                "parent": logged_in,
                "bound": True,
            },
        )
    ]


def test_without_options_the_agent_decides_and_the_label_is_the_commands_name_alone(agent, logged_in):
    look()
    label = os.path.basename(sys.executable)
    assert agent.calls == [("createToken", {"label": label, "parent": logged_in, "bound": True})]


def test_the_commands_options_are_its_own_with_and_without_dashes(agent, logged_in):
    echo = "import sys; print(sys.argv[1:])"
    for dashes in (["--"], []):
        ended = process("exec", *dashes, sys.executable, "-c", echo, "--json", "--", "--fd", "-h", "")
        assert ended.stdout == "['--json', '--', '--fd', '-h', '']\n"


def test_the_exit_code_is_the_commands_own(agent, logged_in):
    assert process("exec", "--", "sh", "-c", "exit 42").returncode == 42


def test_a_signal_is_the_commands_own(agent, logged_in):
    assert process("exec", "--", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM


def test_no_signal_is_ignored_that_was_not_before(agent, logged_in):
    shell = subprocess.run(
        ["sh", "-c", 'trap "" USR1; "$@"', "sh", *COMMAND, "exec", "--", *_sigign()], **_piped()
    )
    plain = subprocess.run(["sh", "-c", 'trap "" USR1; "$@"', "sh", *_sigign()], **_piped())
    assert shell.stdout == plain.stdout
    assert shell.stdout.startswith("SigIgn")


def _sigign() -> list[str]:
    return ["grep", "SigIgn", "/proc/self/status"]


def _piped() -> dict[str, object]:
    return {"capture_output": True, "text": True, "timeout": 60, "check": False}


def test_the_terminal_is_the_commands_own(agent, logged_in):
    ended = on_terminal("exec", "--", "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && tty")
    assert ended.code == 0
    assert "/dev/" in ended.shown


def test_streams_that_the_shell_closed_are_not_taken_for_the_token(agent, logged_in):
    script = '"$@" 0<&- 1>&- 2>&-'
    look_at = ["sh", "-c", 'echo "$AGENTD_TOKEN_FD" > seen']
    subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, "exec", "--fd", "--", *look_at], timeout=60, check=True
    )
    assert int(Path("seen").read_text()) >= 10


def test_the_command_finds_the_agent_that_an_option_named(agent, logged_in, folder):
    moved = folder / "moved.sock"
    moved.symlink_to(agent.path)
    os.chdir(folder)
    ended = process(
        "--socket", "moved.sock", "exec", "--", "sh", "-c", 'cd / && echo "$AGENTD_SOCKET" && exec "$@"', "sh",
        *COMMAND, "verify", env=os.environ | {"XDG_RUNTIME_DIR": str(folder.parent)},
    )  # fmt: skip
    assert ended.stdout == f"{moved}\nvalid\n"


@pytest.mark.parametrize("way", ["--fd", "--file", "--env"])
def test_a_command_that_is_not_there_is_127_and_its_session_is_ended(agent, logged_in, folder, way):
    for name in ("no-such-command-at-all", "/no/such/command"):
        ended = process("exec", way, "--", name, "x")
        assert (ended.returncode, ended.stdout) == (127, "")
        assert ended.stderr == (
            f"agentctl: {name}: No such file or directory\nagentctl: its session was ended\n"
        )
        assert list(agent.sessions) == [logged_in]
    assert not list((folder / "exec").glob("*"))


def test_a_command_that_cannot_be_executed_is_126_and_its_session_is_ended(agent, logged_in):
    Path("no-program").write_text("no program\n")
    Path("no-program").chmod(0o755)
    Path("not-executable").touch(mode=0o644)
    Path("no-interpreter").write_text("#!/no/such/interpreter\n")
    Path("no-interpreter").chmod(0o755)
    for name, reason in (
        (
            "./no-program",
            "Exec format error; if it is a script, begin it with a line like #!/bin/sh, or run `sh ./no-program`",
        ),
        ("./not-executable", "Permission denied"),
        ("./no-interpreter", "the interpreter in its first line does not exist"),
        ("/", "is a folder"),
    ):
        ended = process("exec", "--json", "--", name)
        assert ended.returncode == 126
        assert json.loads(ended.stderr)["error"] == {
            "code": "NOT_EXECUTABLE",
            "number": None,
            "message": f"{name}: {reason}",
        }
        assert list(agent.sessions) == [logged_in]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "the command's name is empty; is a shell variable unset?"),
        ("export", "export is a shell command, not a program; run `sh -c 'export …'`"),
        (
            "ls -l | cat",
            "ls -l | cat: No such file or directory; pass the words of a command as separate "
            "arguments, or run a shell command line with `sh -c`",
        ),
        ("KEY=hunter2", "KEY=… is an assignment, not a command; run `env` with it and the command"),
        ("/no/such\n/command", "/no/such\n/command: No such file or directory"),
        ("/dev/null/x", "/dev/null/x: Not a directory"),
    ],
)
def test_a_name_that_is_no_programs_is_127_with_the_likely_meaning(agent, logged_in, name, message):
    ended = process("exec", "--json", "--", name)
    assert ended.returncode == 127
    assert json.loads(ended.stderr)["error"] == {"code": "NOT_FOUND", "number": None, "message": message}
    assert list(agent.sessions) == [logged_in]


def test_a_script_without_an_interpreter_that_path_finds_is_named_by_its_path(agent, logged_in, tmp_path):
    (tmp_path / "tool").write_text("echo hi\n")
    (tmp_path / "tool").chmod(0o755)
    ended = process("exec", "--", "tool", env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert ended.returncode == 126
    assert f"or run `sh {tmp_path}/tool`" in ended.stderr


def test_after_a_command_that_could_not_be_started_agentctl_is_as_before(agent, logged_in, open_descriptors):
    before = [signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT)]
    before_descriptors = open_descriptors()
    assert in_process("exec", "--", "no-such-command-at-all").code == 127
    assert [signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT)] == before
    assert len(open_descriptors()) <= len(before_descriptors) + 1, "the fake agent may still hold its end"


def test_a_session_that_cannot_be_ended_does_not_hide_the_reason(agent, logged_in):
    agent.refuse("revokeToken", StoreError("on fire"))
    ended = in_process("exec", "--", "no-such-command-at-all")
    assert ended.code == 127
    assert "No such file" in ended.err


def test_a_handover_that_fails_ends_the_session_and_starts_nothing(agent, logged_in, folder):
    (folder / "exec").touch()
    ended = process("exec", "--file", "--", "touch", "started")
    assert ended.returncode == 77
    assert str(folder / "exec") in ended.stderr
    assert list(agent.sessions) == [logged_in]
    assert not Path("started").exists()


def test_a_child_that_the_agent_refuses_starts_nothing(agent, logged_in):
    agent.refuse("createToken", NotWithinParentError("scope b is not the parent's"))
    ended = process("exec", "--scope", "b", "--", "touch", "started")
    assert ended.returncode == 77
    assert "scope b is not the parent's" in ended.stderr
    assert "agentctl inspect" in ended.stderr
    assert not Path("started").exists()


def test_where_nobody_is_logged_in_nothing_is_started(agent):
    ended = process("exec", "--", "touch", "started")
    assert ended.returncode == 1
    assert "not logged in" in ended.stderr
    assert not Path("started").exists()


def test_without_a_command_it_is_a_usage_error(agent, logged_in):
    assert in_process("exec", "--").code == 64
    assert agent.calls == []


def test_a_descriptor_that_did_not_come_along_is_an_error_that_names_the_variable(agent, logged_in):
    between = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"  # closes what is above 2
    ended = process("exec", "--fd", "--", sys.executable, "-c", between, *COMMAND, "verify")
    assert ended.returncode == 77
    assert "AGENTD_TOKEN_FD" in ended.stderr
    assert "pass_fds" in ended.stderr


def test_a_file_that_is_not_to_be_seen_is_an_error_that_names_the_descriptor(agent, logged_in):
    script = 'rm "$AGENTD_SESSION_TOKEN_PATH" && exec "$@"'  # as in a sandbox
    ended = process("exec", "--", "sh", "-c", script, "sh", *COMMAND, "inspect")
    assert ended.returncode == 1
    assert ended.stderr.startswith("agentctl: not logged in\n")
    assert "agentctl exec --fd" in ended.stderr


def test_the_help_says_what_the_environment_means(agent):
    shown = " ".join(in_process("exec", "-h").out.split())
    assert "Every process of the user can read it" in shown
    assert "inherits it" in shown
