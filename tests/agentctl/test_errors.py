"""How an error ends: its exit code, its words, and never a traceback or a token."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading

import click
import pytest

from agentd_client import errors
from agentd_client.cli import exit_codes, isolation, main
from agentd_client.cli.current_token import CurrentToken, NotLoggedInError
from agentd_client.cli.exit_codes import MEANINGS, exit_code
from agentd_client.cli.output import OutputError
from agentd_client.cli.program import NotExecutableError, NotFoundError
from agentd_client.errors import ERRORS, LocalParamsError
from tests.agentctl.running import in_process

SECRET = "v4.local.A_real_one-1234"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotLoggedInError(), 1),
        (click.UsageError(""), 64),
        (click.BadParameter(""), 64),
        (errors.InvalidTokenError(), 65),
        (errors.InvalidExpiryError(), 65),
        (errors.InvalidLabelError(), 65),
        (errors.InvalidScopesError(), 65),
        (errors.InvalidAudienceError(), 65),
        (errors.InvalidUsesError(), 65),
        (errors.InvalidGraceError(), 65),
        (errors.ParentNotValidError(), 77),
        (errors.NotWithinParentError(), 77),
        (errors.TokenNotValidError(), 77),
        (errors.CannotBindError(), 71),
        (NotExecutableError(), 126),
        (NotFoundError(), 127),
        (errors.AgentUnreachableError(), 69),
        (errors.AgentStoppingError(), 69),
        (errors.AgentLockedError(), 69),
        (errors.KeyUnavailableError(), 69),
        (errors.SessionManagerNotRunningError(), 69),
        (errors.DBNotRunningError(), 69),
        (errors.KeyRingNotRunningError(), 69),
        (errors.AgentInternalError(), 70),
        (errors.LifecycleError(), 70),
        (errors.ClientClosedError(), 70),
        (errors.StartError(), 69),
        (ZeroDivisionError(), 70),
        (OSError(), 71),
        (PermissionError(), 71),
        (errors.StoreError(), 74),
        (errors.StoreFullError(), 74),
        (errors.StoreDamagedError(), 74),
        (errors.AgentTimeoutError(), 75),
        (errors.OutcomeUnknownError(), 75),
        (errors.TokenFileBusyError(), 75),
        (errors.StoreInUseError(), 75),
        (errors.TransactionConflictError(), 75),
        (errors.ProtocolError(), 76),
        (errors.RequestError(), 76),
        (errors.UnknownMethodError(), 76),
        (errors.InvalidParamsError(), 76),
        (LocalParamsError(), 65),
        (errors.ForeignAgentError(), 77),
        (errors.TokenFileError(), 77),
        (errors.PassphraseError(), 77),
        (errors.NoPassphraseError(), 77),
        (errors.KeyFileError(), 78),
        (errors.ConfigError(), 78),
        (click.Abort(), 130),
        (KeyboardInterrupt(), 130),
        (OutputError(), 74),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_the_exit_code_of_each_error(error, code):
    assert exit_code(error) == code


def test_no_error_of_the_agent_looks_like_an_answer_and_each_code_is_in_the_help():
    codes = {exit_code(error()) for error in ERRORS.values()}
    assert codes.isdisjoint({exit_codes.DONE, exit_codes.NO})
    assert codes <= set(MEANINGS)
    shown = in_process("--help").out
    assert all(f"  {code}" in shown and meaning.split()[0] in shown for code, meaning in MEANINGS.items())


def test_an_error_as_json_is_one_object_on_standard_error(agent, logged_in):
    agent.refuse("verifyToken", errors.AgentLockedError("locked at noon"))
    ended = in_process("verify", "--json")
    assert (ended.code, ended.out) == (69, "")
    assert json.loads(ended.err) == {
        "error": {
            "code": "LOCKED",
            "number": errors.AgentLockedError.number,
            "message": "locked at noon",
        }
    }


def test_a_warning_as_json_is_one_object_on_a_line(agent, monkeypatch):
    monkeypatch.setenv("AGENTD_TOKEN", "v4.local.other")
    (line,) = in_process("--json", "login").err.splitlines()
    assert "AGENTD_TOKEN" in json.loads(line)["warning"]["message"]


@pytest.mark.parametrize("args", [["--json", "frobnicate"], ["verify", "--frob", "--json"]])
def test_a_usage_error_is_json_too_where_that_was_asked_for(args):
    ended = in_process(*args)
    assert ended.code == 64
    assert json.loads(ended.err)["error"]["code"] == "USAGE"


def test_a_usage_error_says_where_the_help_is():
    ended = in_process("verify", "--frobnicate")
    assert ended.code == 64
    assert "--frobnicate" in ended.err
    assert "see `agentctl verify --help`" in ended.err


def test_the_words_of_an_agent_cannot_steer_the_terminal(agent, logged_in):
    agent.refuse("verifyToken", errors.StoreError("\x1b[2Jgone"))
    assert "agentctl: \\x1b[2Jgone\n" in in_process("verify").err


@pytest.mark.parametrize(
    "args",
    [
        ["verify", SECRET],
        ["inspect", SECRET],
        ["revoke", SECRET],
        ["revoke", SECRET.upper()],
        ["login", "--label", SECRET],
        [SECRET],
        [f"--token={SECRET}", "verify"],
        ["verify", "--json", SECRET],
        ["verify", "-", SECRET],
    ],
)
def test_a_token_in_an_argument_is_refused_with_a_reason_and_not_repeated(agent, args):
    ended = in_process(*args)
    assert ended.code == 64
    assert "never taken from an argument" in ended.err
    assert "real_one" not in (ended.out + ended.err).casefold()
    assert agent.calls == []


@pytest.mark.parametrize(
    ("name", "argument"),
    [("verify", "hunter2"), ("verify", ""), ("inspect", "hunter.2"), ("inspect", ""), ("inspect", "x" * 65)],
)
def test_what_is_neither_a_dash_nor_an_id_is_refused_and_not_repeated(agent, logged_in, name, argument):
    ended = in_process(name, argument)
    assert ended.code == 64
    assert not argument or argument not in ended.err
    assert agent.calls == []


def test_after_exec_only_its_own_arguments_are_looked_at_for_tokens(agent):
    refused = in_process("exec", "--label", SECRET, "--", "true")
    assert "never taken from an argument" in refused.err
    assert "never taken from an argument" not in in_process("exec", "--", "grep", "v4.local.").err


def test_a_token_shows_in_no_repr():
    assert "secret-text" not in repr(CurrentToken("secret-text", "AGENTD_TOKEN", is_from_file=False))


def test_a_fault_of_agentctl_itself_is_one_line_without_what_it_stumbled_over(agent, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr("agentd_client.session.Session.read_token", broken)
    ended = in_process("verify")
    assert ended.code == 70
    assert ended.err == "agentctl: internal error in agentctl (ZeroDivisionError); --debug shows where\n"
    shown = in_process("--debug", "verify")
    assert shown.code == 70
    assert "Traceback" in shown.err


def test_an_error_of_the_system_names_the_file(agent, monkeypatch):
    def broken(*args):
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr("agentd_client.session.Session.read_token", broken)
    assert in_process("verify") == (71, "", "agentctl: /somewhere: Permission denied\n")


def test_something_else_that_listens_is_a_matter_of_protocol(folder):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "agent.sock"))
        listener.listen()

        def speak() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(65536)

        thread = threading.Thread(target=speak)
        thread.start()
        ended = in_process("verify", "-", stdin=SECRET.encode())
        thread.join()
    assert ended.code == 76
    assert SECRET not in ended.err


def test_an_agent_that_does_not_know_the_method_is_older_than_agentctl(agent, logged_in):
    agent.refuse("inspectToken", errors.UnknownMethodError("no method inspectToken"))
    ended = in_process("inspect")
    assert ended.code == 76
    assert "agentctl is newer than the agent" in ended.err
    assert "this is a verify socket" in ended.err


@pytest.mark.parametrize(
    ("error", "code", "advice"),
    [
        (errors.InvalidParamsError("no such parameter"), 76, "of different versions: restart the agent"),
        (LocalParamsError("no such parameter"), 65, "nothing was sent; check the command line"),
    ],
)
def test_a_parameter_that_the_client_itself_refuses_is_not_a_matter_of_versions(
    agent, logged_in, monkeypatch, error, code, advice
):
    def refuse(*args):
        raise error

    monkeypatch.setattr("agentd_client.blocking.Client.revoke_token", refuse)
    ended = in_process("logout")
    assert ended.code == code
    assert "agentctl: no such parameter\n" in ended.err
    assert ended.err.endswith(f"{advice}\n")


@pytest.fixture
def ends_as_others_do(monkeypatch):
    """In a test `main` must not end the process."""
    monkeypatch.setattr(isolation, "leave_at_once", sys.exit)


def test_without_click_it_says_what_to_install(monkeypatch, capsys, ends_as_others_do):
    monkeypatch.setitem(sys.modules, "click", None)
    monkeypatch.setattr(sys, "path", sys.path[:])  # it takes from it
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 69
    assert capsys.readouterr().err == "agentctl needs click: pip install click\n"


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_without_click_the_exit_code_stays_where_nobody_can_be_told(redirection):
    program = "import sys; sys.modules['click'] = None; from agentd_client.cli import main; main()"
    command = ["sh", "-c", f'"$0" -c "$1" {redirection}', sys.executable, program]
    assert subprocess.run(command, timeout=60, check=False).returncode == 69


def test_a_click_that_is_broken_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "click.py").write_text("import no_such_module_at_all\n")
    program = f"import sys; sys.path.insert(1, {str(tmp_path)!r}); from agentd_client.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 70
    assert ended.stderr == (
        "agentctl cannot start (ModuleNotFoundError, no_such_module_at_all): reinstall it\n"
    )


def test_leaving_at_once_writes_what_is_left_and_keeps_the_code():
    program = (
        "import io, sys; from agentd_client.cli import isolation\n"
        "sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, 'w')))\n"
        "sys.stdout.write('x')\n"
        "isolation.leave_at_once(3)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (3, b"x")


def test_main_ends_with_the_code_of_the_command(monkeypatch, agent, capsys, ends_as_others_do):
    monkeypatch.setattr(sys, "argv", ["agentctl", "verify"])
    monkeypatch.setattr(sys, "path", sys.path[:])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().out == "invalid NOT_LOGGED_IN\n"
