"""The clients in examples/, each as its language runs it, asking a real agent."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from agentd_client.protocol.limits import MAX_MESSAGE_BYTES
from agentd_client.token_file.descriptor import sealed_descriptor
from tests.other_user import NOBODY, needs_root

EXAMPLES = Path(__file__).parents[2] / "examples"
BUILD_SECONDS = 300
RUN_SECONDS = 60
NO_ANSWER = 69

GO_PACKAGES = Path("/usr/share/gocode")
"""Where Debian's Go packages are."""


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def built(*command: str | Path, **environ: str) -> None:
    subprocess.run(command, env=os.environ | environ, check=True, timeout=BUILD_SECONDS)


def loads(*command: str) -> None:
    """Skip if the command, which loads the language's libraries, fails."""
    needs(command[0])
    if subprocess.run(command, capture_output=True, check=False, timeout=BUILD_SECONDS).returncode:
        pytest.skip(f"{command[0]} lacks a library: {command[-1]}")


def node(folder: Path) -> list[str]:
    needs("node", "npm")
    installing = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), "@msgpack/msgpack@3"]
    if subprocess.run(installing, capture_output=True, check=False, timeout=BUILD_SECONDS).returncode:
        pytest.skip("npm cannot install @msgpack/msgpack")
    shutil.copy(EXAMPLES / "agentd.mjs", folder)
    return ["node", str(folder / "agentd.mjs"), "verify"]


def go(folder: Path) -> list[str]:
    needs("go")
    if not (GO_PACKAGES / "src/github.com/vmihailenco/msgpack/v5").is_dir():
        pytest.skip("golang-github-vmihailenco-msgpack.v5-dev is not installed")
    program = folder / "agentd"
    built(
        *("go", "build", "-o", program, EXAMPLES / "agentd.go"),
        GO111MODULE="off",
        GOPATH=str(GO_PACKAGES),
        GOCACHE=str(folder / "cache"),
    )
    return [str(program), "verify"]


def c(folder: Path) -> list[str]:
    needs("cc")
    if not Path("/usr/include/msgpack.h").exists():
        pytest.skip("libmsgpack-dev is not installed")
    program = folder / "verify"
    warnings = ["-std=c17", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    built("cc", *warnings, "-o", program, EXAMPLES / "verify.c", "-lmsgpackc")
    return [str(program)]


def ruby(_: Path) -> list[str]:
    loads("ruby", "-e", "require 'msgpack'")
    return ["ruby", "-w", str(EXAMPLES / "verify.rb")]


def php(_: Path) -> list[str]:
    loads("php", "-r", "exit(extension_loaded('msgpack') && extension_loaded('posix') ? 0 : 1);")
    return ["php", str(EXAMPLES / "verify.php")]


def lua(_: Path) -> list[str]:
    loads("lua5.3", "-e", "require 'mpack' require 'posix'")
    return ["lua5.3", str(EXAMPLES / "verify.lua")]


def shell(_: Path) -> list[str]:
    needs("socat")
    return ["sh", str(EXAMPLES / "verify.sh")]


CLIENTS = {
    "node": ("agentd.mjs", node),
    "go": ("agentd.go", go),
    "ruby": ("verify.rb", ruby),
    "c": ("verify.c", c),
    "php": ("verify.php", php),
    "lua": ("verify.lua", lua),
    "shell": ("verify.sh", shell),
}
CHECK_THE_FOLDER = {"node", "php", "lua", "shell"}
"""The others ask the kernel who is listening."""


class Example:
    """One client, ready to run."""

    def __init__(self, language: str, command: list[str]) -> None:
        self.language = language
        self._command = command

    def start(self, *arguments: str, **environ: str | None) -> subprocess.Popen[str]:
        """Start it; a variable of None is unset."""
        variables = {name: value for name, value in (os.environ | environ).items() if value is not None}
        return subprocess.Popen(
            [*self._command, *arguments],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[int(number)] if (number := environ.get("AGENTD_TOKEN_FD")) else [],
            text=True,
        )

    def verify(self, *arguments: str, **environ: str | None) -> tuple[str, int]:
        """What it prints, and its exit code. It complains exactly if there is no answer."""
        started = self.start(*arguments, **environ)
        printed, complaint = started.communicate(timeout=RUN_SECONDS)
        assert bool(complaint) == (started.returncode == NO_ANSWER), complaint
        assert "v4.local." not in complaint
        return printed.strip(), started.returncode

    def within(self, *wrapper: str) -> Example:
        """The same, run by another program."""
        return Example(self.language, [*wrapper, *self._command])

    def otherwise(self, command: str) -> Example:
        """The same with another command than `verify`."""
        assert self._command[-1] == "verify"
        return Example(self.language, [*self._command[:-1], command])


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


class FakeAgent:
    """Answers every request with the same bytes, or if they are None not at all."""

    def __init__(self, path: Path, uid: int | None = None) -> None:
        self.received: list[bytes] = []
        self.answer: bytes | None = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        if uid is not None:
            os.seteuid(uid)  # SO_PEERCRED shows who called listen(2)
        try:
            self._listener.listen()
        finally:
            if uid is not None:
                os.seteuid(0)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.ExitStack() as unanswered, contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with contextlib.ExitStack() as answered, contextlib.suppress(ConnectionError):
                    answered.enter_context(connection)
                    self._receive(connection)
                    if self.answer is None:
                        unanswered.push(answered.pop_all())
                    else:
                        connection.sendall(self.answer)

    def _receive(self, connection: socket.socket) -> None:
        """Receive a whole message, which the shell sends in many pieces, or what comes before the end."""
        unpacker = msgpack.Unpacker()
        while received := connection.recv(MAX_MESSAGE_BYTES):
            self.received.append(received)
            unpacker.feed(received)
            for _ in unpacker:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


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
