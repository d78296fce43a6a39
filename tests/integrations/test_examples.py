"""The clients in examples/, each as its language runs it, asking a real agent."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from agentd_client.token_file.descriptor import sealed_descriptor
from tests.other_user import NOBODY, needs_root

from .examples import CHECK_THE_FOLDER, CLIENTS, EXAMPLES, NO_ANSWER, RUN_SECONDS, Example, FakeAgent, shell

PROTOCOL = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


@pytest.fixture(scope="session", params=CLIENTS)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Example:
    _, prepare = CLIENTS[request.param]
    return Example(request.param, prepare(tmp_path_factory.mktemp(request.param)))


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short path: a socket's has 107 bytes."""
    return tmp_path_factory.mktemp("s")


VALID = ("valid", 0)


def test_says_what_the_agent_says(agent, example):
    narrow = agent.create_token(audience=["web"], scopes=["read", "write"]).token
    plain = agent.create_token()
    assert example.verify(AGENTD_TOKEN=plain.token) == VALID
    assert example.verify(AGENTD_TOKEN=narrow) == ("invalid WRONG_AUDIENCE", 1)
    assert example.verify("web", AGENTD_TOKEN=narrow) == VALID
    assert example.verify("web", "read", "write", AGENTD_TOKEN=narrow) == VALID
    assert example.verify("web", "read", "admin", AGENTD_TOKEN=narrow) == ("invalid MISSING_SCOPE", 1)
    assert example.verify("", "admin", AGENTD_TOKEN=plain.token) == VALID
    assert example.verify(AGENTD_TOKEN=f"{plain.token}x") == ("invalid MALFORMED", 1)
    assert example.verify(AGENTD_TOKEN="x" * 9000) == ("invalid MALFORMED", 1)
    agent.revoke(plain)
    assert example.verify(AGENTD_TOKEN=plain.token) == ("invalid REVOKED", 1)


def test_finds_the_token(agent, example):
    assert example.verify() == ("invalid NOT_LOGGED_IN", 1)
    file = Path(agent.token_path)
    file.write_text("")
    assert example.verify() == ("invalid NOT_LOGGED_IN", 1)
    file.write_text(f"  {agent.create_token().token}\n")
    assert example.verify() == VALID
    assert example.verify(AGENTD_TOKEN="other") == ("invalid MALFORMED", 1)
    narrow = sealed_descriptor(agent.create_token(audience=["web"]).token)
    with open(narrow):
        assert example.verify(AGENTD_TOKEN_FD=str(narrow)) == ("invalid WRONG_AUDIENCE", 1)
        assert example.verify("web", AGENTD_TOKEN_FD=str(narrow)) == VALID
        assert example.verify("web", AGENTD_TOKEN="other", AGENTD_TOKEN_FD=str(narrow))[1] == 1


@pytest.mark.usefixtures("agentd_session")
@pytest.mark.parametrize("handover", ["--fd", "--file", "--env"])
def test_finds_the_token_that_agentctl_exec_hands_over(example, handover):
    agentctl = str(Path(sys.executable).parent / "agentctl")
    narrowed = example.within(agentctl, "exec", "--timeout", "60", "--audience", "web", handover, "--")
    assert narrowed.verify() == ("invalid WRONG_AUDIENCE", 1)
    assert narrowed.verify("web") == VALID


UNTOLD = dict.fromkeys(("AGENTD_SOCKET", "AGENTD_SESSION_TOKEN_PATH", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"))


def test_finds_the_agent_in_the_runtime_folder(agent, example, folder):
    (folder / "agentd").mkdir(mode=0o700)
    (folder / "agentd" / "agent.sock").symlink_to(agent.socket_path)
    environ = UNTOLD | {"XDG_RUNTIME_DIR": str(folder)}
    assert example.verify(**environ) == ("invalid NOT_LOGGED_IN", 1)
    (folder / "agentd" / "session-token").write_text(agent.create_token().token)
    assert example.verify(**environ) == VALID


def with_run_user(*arguments: str) -> list[str]:
    """bubblewrap, with a /run/user of its own."""
    sandbox = ["bwrap", "--die-with-parent", "--dev-bind", "/", "/", "--tmpfs", "/run/user", *arguments]
    if shutil.which("bwrap") is None or subprocess.run([*sandbox, "true"], check=False).returncode:
        pytest.skip("bubblewrap is not to be had")
    return sandbox


def test_finds_the_agent_in_the_users_runtime_folder(agent, example):
    run = f"/run/user/{os.geteuid()}/agentd"
    seen = example.within(*with_run_user("--bind", str(Path(agent.socket_path).parent), run))
    assert seen.verify(**UNTOLD) == ("invalid NOT_LOGGED_IN", 1)
    Path(agent.token_path).write_text(agent.create_token().token)
    assert seen.verify(**UNTOLD) == VALID
    assert seen.verify(**UNTOLD | {"XDG_RUNTIME_DIR": "relative"}) == VALID
    not_a_folder = example.within(*with_run_user("--symlink", "/run", f"/run/user/{os.geteuid()}"))
    assert not_a_folder.verify(**UNTOLD, AGENTD_TOKEN="v4.local.AAAA") == ("", NO_ANSWER)


def test_finds_the_agent_in_the_state_folder(agent, example, folder):
    state = folder / ".local" / "state"
    state.mkdir(parents=True)
    (state / "agentd").symlink_to(Path(agent.socket_path).parents[1])
    Path(agent.token_path).write_text(agent.create_token().token)
    without = example.within(*with_run_user())
    at_home = [
        dict.fromkeys(("XDG_RUNTIME_DIR", "XDG_STATE_HOME"), unset) for unset in (None, "", "relative")
    ]
    named = {"XDG_STATE_HOME": str(state), "HOME": "/nonexistent"}
    for environ in (*at_home, named):
        assert without.verify(**UNTOLD | {"HOME": str(folder)} | environ) == VALID


def test_an_agent_that_cannot_answer_is_no_answer(agent, example):
    token = agent.create_token().token
    agent.lock()
    assert example.verify(AGENTD_TOKEN=token) == ("", NO_ANSWER)
    agent.unlock()
    assert example.verify("no name", AGENTD_TOKEN=token) == ("", NO_ANSWER)  # INVALID_AUDIENCE
    agent.stop()
    assert example.verify(AGENTD_TOKEN=token) == ("", NO_ANSWER)


def test_a_label_cannot_say_valid(agent, example):
    """In UTF-8 it holds the bytes of `"valid": true`."""
    label = "\u00a5valid\u00e9"
    assert b"\xa5valid\xc3" in label.encode()
    token = agent.create_token(label=label, audience=["web"]).token
    assert example.verify(AGENTD_TOKEN=token) == ("invalid WRONG_AUDIENCE", 1)


@pytest.fixture
def fake(folder: Path) -> Iterator[FakeAgent]:
    agent = FakeAgent(folder / "agent.sock")
    yield agent
    agent.close()


def packed(*message: object) -> bytes:
    return msgpack.packb(message)


YES = {"valid": True, "reason": None, "session": None}
CUT_OFF = packed(1, 1, None, YES)[:-1]
NO_ANSWERS = [
    b"",
    b"\xc1",
    CUT_OFF,
    packed(1, 2, None, YES),
    packed(0, 1, None, YES),
    packed(1, 1, [0, "LOCKED: the agent is locked"], None),
    packed(1, 1, [0, "LOCKED: the agent is locked"], YES),
    packed(1, 1, None, None),
    packed(1, 1, None, True),
    packed(1, 1, None, {}),
    packed(1, 1, None, YES | {"valid": 1}),
    packed(1, 1, None, YES | {"valid": "true"}),
    packed(True),
    packed(1, 1, None, YES | {"valid": None, "session": {"valid": True}}),
]


def test_only_the_agents_yes_is_a_yes(example, folder, fake):
    asking = {"AGENTD_SOCKET": str(folder / "agent.sock"), "AGENTD_TOKEN": "v4.local.AAAA"}
    fake.answer = packed(1, 1, None, YES)
    assert example.verify(**asking) == VALID
    for answer in NO_ANSWERS:
        if answer == CUT_OFF and example.language == "shell":
            continue  # it reads no further than "valid": true
        fake.answer = answer
        assert example.verify(**asking) == ("", NO_ANSWER), answer


def test_does_not_wait_for_ever(example, folder, fake):
    fake.answer = None
    asking = {"AGENTD_SOCKET": str(folder / "agent.sock"), "AGENTD_TOKEN": "v4.local.AAAA"}
    assert example.verify(**asking) == ("", NO_ANSWER)
    assert fake.received


@needs_root
def test_another_users_agent_gets_nothing(example, folder):
    folder.chmod(0o777)
    impostor = FakeAgent(folder / "agent.sock", uid=NOBODY)
    impostor.answer = packed(1, 1, None, YES)
    try:
        asking = {"AGENTD_SOCKET": str(folder / "agent.sock"), "AGENTD_TOKEN": "v4.local.AAAA"}
        assert example.verify(**asking) == ("", NO_ANSWER)
        assert not impostor.received
    finally:
        impostor.close()


def test_a_folder_that_others_can_write_to_is_refused_where_the_kernel_cannot_be_asked(agent, example):
    folder = Path(agent.socket_path).parent
    token = agent.create_token().token
    expected = ("", NO_ANSWER) if example.language in CHECK_THE_FOLDER else VALID
    for mode in (0o777, 0o770, 0o702):
        folder.chmod(mode)
        assert example.verify(AGENTD_TOKEN=token) == expected
    folder.chmod(0o755)
    assert example.verify(AGENTD_TOKEN=token) == VALID


def test_the_documents_check_of_the_folder_is_one(agent):
    (check,) = re.findall(r"```sh\n(folder=.*?)```", PROTOCOL, re.S)
    folder = Path(agent.socket_path).parent
    link = folder.parent / "link"
    link.symlink_to(folder)

    def exit_code(path: Path) -> int:
        return subprocess.run(["sh", "-c", f"socket={path}\n{check}"], check=False).returncode

    assert exit_code(folder / "agent.sock") == 0
    assert exit_code(link / "agent.sock") == 77
    for mode in (0o777, 0o770, 0o702):
        folder.chmod(mode)
        assert exit_code(folder / "agent.sock") == 77


@pytest.mark.parametrize("example", ["node", "go"], indirect=True)
def test_opens_and_ends_a_session(agent, example):
    token, code = example.otherwise("create").verify("60", "from an example")
    assert code == 0
    verification = agent.client.inspect_token(token)
    assert verification.valid
    assert verification.session.label == "from an example"
    assert example.otherwise("revoke").verify(AGENTD_TOKEN=token) == ("revoked", 0)
    assert example.otherwise("verify").verify(AGENTD_TOKEN=token) == ("invalid REVOKED", 1)
    assert example.otherwise("revoke").verify(AGENTD_TOKEN=token) == ("there was no session to end", 1)
    assert example.otherwise("create").verify("-1") == ("", NO_ANSWER)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_shell_puts_no_token_into_an_argument_list(agent, tmp_path):
    token = agent.create_token().token
    trace = tmp_path / "trace"
    tracing = ["strace", "-f", "-s", "65536", "-e", "trace=execve", "-o", str(trace)]
    ended = subprocess.run(
        [*tracing, *shell(tmp_path)],
        env=os.environ | {"AGENTD_TOKEN": token},
        check=False,
        timeout=RUN_SECONDS,
    )
    assert ended.returncode == 0
    assert "socat" in trace.read_text()
    assert token not in trace.read_text()


def test_the_page_names_every_client_and_its_lines():
    page = (EXAMPLES / "README.md").read_text()
    listed = re.findall(r"^\| \[(\S+)\]\(\1\) \|.*\| (\d+) \|$", page, re.M)
    counted = [(file, str(len((EXAMPLES / file).read_text().splitlines()))) for file, _ in CLIENTS.values()]
    assert listed == counted
