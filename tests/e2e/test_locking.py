from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
import pytest

from agentd_client import AgentLockedError, Client, NoPassphraseError, PassphraseError
from tests.e2e.daemon import START_SECONDS, Daemon, serving
from tests.e2e.locked import PASSPHRASE, descriptor_with, passphrase_file, protect, unlocked
from tests.keys.ordinary_memory import HAS_SECRET_MEMORY, KINDS, python_file
from tests.keys.scanning import Found, scan, scan_through

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="reading another process's memory takes root")


def status_once(agent: Client, *, locked: bool):
    """The status, once the agent is (un)locked; a signal is not answered."""
    last = time.monotonic() + START_SECONDS
    while (status := agent.get_status()).locked != locked:
        assert time.monotonic() < last
    return status


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch, tmp_path):
    """The kind of memory that agents find."""
    if request.param == "secret" and not HAS_SECRET_MEMORY:
        pytest.skip("this kernel has no secret memory")
    monkeypatch.setattr(sys, "executable", python_file(request.param, tmp_path))
    return request.param


def test_after_the_lock_no_key_is_in_memory_and_before_it_only_where_it_should_be(home, kind):
    keys = protect(home)
    with unlocked(home) as daemon, daemon.client() as agent:
        token = agent.create_token().token
        assert agent.verify_token(token)
        before = scan(daemon.process.pid, keys)
        agent.lock()
        with pytest.raises(AgentLockedError):
            agent.verify_token(token)
        assert scan(daemon.process.pid, keys) == dict.fromkeys(keys, Found(0, 0))
        shown = keys.keys() - {"root"} if kind == "ordinary" else set()  # secret memory shows nobody anything
        assert before == {name: Found(1, 1) if name in shown else Found(0, 0) for name in keys}
        for _ in range(3):
            agent.unlock(PASSPHRASE)
            assert agent.verify_token(token)
            agent.lock()
        assert scan(daemon.process.pid, keys) == dict.fromkeys(keys, Found(0, 0))


def secret_mappings(daemon: Daemon) -> int:
    return Path(f"/proc/{daemon.process.pid}/maps").read_text().count("/secretmem")


def test_the_status_says_what_memory_the_keys_are_in(home, kind):
    protect(home)
    with unlocked(home) as daemon, daemon.client() as agent:
        status = agent.get_status()
        assert (status.memory_locked, status.memory_secret) == (True, kind == "secret")
        assert (secret_mappings(daemon) > 0) == (kind == "secret")
        agent.lock()
        assert agent.get_status().memory_secret == (kind == "secret")
        assert secret_mappings(daemon) == 0  # with any of it the machine could not hibernate


def test_what_opened_its_memory_before_it_was_closed_reads_no_key(home, kind):
    keys = protect(home)
    with stopped_at_its_start(home, kind, "--passphrase-file", passphrase_file(home)) as (pid, go_on):
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        go_on()
        try:
            with Client.connect(str(home.socket), timeout=START_SECONDS) as agent:
                agent.create_token()
            found = scan_through(memory, pid, keys)
            readable = sum(bool(os.pread(memory, 1, start)) for start in writable_mappings(pid))
        finally:
            os.close(memory)
    assert readable, "what was opened then stays open"
    assert found["root"] == Found(0, 0)
    assert any(copies for copies, _ in found.values()) == (kind == "ordinary")


@contextmanager
def stopped_at_its_start(home, kind: str, *args: str) -> Iterator[tuple[int, Callable[[], object]]]:
    """An agent that has not run an instruction of its interpreter's yet, and what lets it go on."""
    libc = ctypes.CDLL(None, use_errno=True)
    traceme, cont, detach = 0, 7, 17  # ptrace(2); a traced process stops at each exec
    agent = subprocess.Popen(
        [sys.executable, "-m", "agentd", "serve", *args],
        env=home.environ,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: libc.ptrace(traceme, 0, 0, 0),
    )
    try:
        execs = {"secret": 2, "ordinary": 3}[kind]  # the shell, perhaps Python that sets the filter, Python
        while execs := execs - (os.WSTOPSIG(os.waitpid(agent.pid, 0)[1]) == signal.SIGTRAP):
            libc.ptrace(cont, agent.pid, 0, 0)
        yield agent.pid, lambda: libc.ptrace(detach, agent.pid, 0, 0)
    finally:
        agent.terminate()
        agent.wait(START_SECONDS)


def writable_mappings(pid: int) -> list[int]:
    lines = (line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines())
    return [
        int(first.partition("-")[0], 16) for first, mode, *rest in lines if mode == "rw-p" and len(rest) > 3
    ]


def test_while_it_is_locked_what_can_be_known_is_told_and_the_rest_is_locked(home):
    protect(home)
    with unlocked(home) as daemon, daemon.client() as agent:
        token = agent.create_token().token
        open_ = agent.get_status()
        assert (open_.locked, open_.protected, open_.sessions) == (False, True, 1)
        with agent.subscribe() as events:
            agent.lock()
            assert next(events).kind == "locked"
            status = agent.get_status()
            assert (status.locked, status.lock_reason, status.protected) == (True, "asked", True)
            assert (status.agent_id, status.sessions, status.key_id, status.store_bytes) == (None,) * 4
            assert agent.hello().protocol == 1
            for call in (
                lambda: agent.create_token(),
                lambda: agent.verify_token(token),
                lambda: agent.inspect_token(token),
                lambda: agent.renew_token(token),
                lambda: agent.revoke_token(token),
                lambda: agent.reset_key(),
                lambda: agent.list_sessions(),
                lambda: agent.list_audit(),
            ):
                with pytest.raises(AgentLockedError):
                    call()
            with pytest.raises(PassphraseError):
                agent.unlock("wrong")
            agent.unlock(PASSPHRASE)
            assert next(events).kind == "unlocked"
        assert agent.verify_token(token)
        assert agent.get_status().wrong_passphrases == 1
    assert "Traceback" not in daemon.log.read_text()
    assert PASSPHRASE not in daemon.log.read_text()


def test_a_signal_locks_it_and_where_the_settings_say_so_does_nothing(home):
    protect(home)
    with unlocked(home) as daemon, daemon.client() as agent:
        daemon.process.send_signal(signal.SIGUSR1)
        assert status_once(agent, locked=True).lock_reason == "signal"
    settings = home.path / "config" / "agentd" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text("lock_on_signal = false\n")
    with unlocked(home) as daemon, daemon.client() as agent:
        daemon.process.send_signal(signal.SIGUSR1)
        assert not agent.get_status().locked
    assert daemon.process.returncode == 0


def test_an_agent_without_a_passphrase_says_that_it_cannot_be_locked(home):
    with serving(home) as daemon, daemon.client() as agent:
        token = agent.create_token().token
        with pytest.raises(NoPassphraseError, match="agentctl passwd"):
            agent.lock()
        daemon.process.send_signal(signal.SIGUSR1)
        assert agent.verify_token(token)
    assert daemon.log.read_text().count("signal: an agent without a passphrase cannot be locked") == 1


def unattended(home, way: str) -> tuple[list[str], dict[str, str], tuple[int, ...]]:
    match way:
        case "file":
            return ["--passphrase-file", passphrase_file(home)], {}, ()
        case "descriptor":
            descriptor = descriptor_with(PASSPHRASE)
            return ["--passphrase-fd", str(descriptor)], {}, (descriptor,)
        case "credential":
            (home.path / "agentd.passphrase").write_text(PASSPHRASE)
            return [], {"CREDENTIALS_DIRECTORY": str(home.path)}, ()
    raise AssertionError(way)


@pytest.mark.parametrize("way", ["file", "descriptor", "credential"])
def test_it_starts_unlocked_with_a_passphrase_that_is_handed_over_unless_it_was_locked_on_purpose(home, way):
    protect(home)

    def start() -> tuple[subprocess.Popen[bytes], Client]:
        args, environ, descriptors = unattended(home, way)
        with (home.path / "agentd.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "agentd", "serve", *args],
                env=home.environ | environ,
                stderr=log,
                pass_fds=descriptors,
            )
        for descriptor in descriptors:
            os.close(descriptor)
        return process, Client.connect(str(home.socket), timeout=START_SECONDS)

    process, agent = start()
    with agent:
        token = agent.create_token().token
        agent.lock()
    process.kill()  # whoever does this wants it unlocked
    process.wait()
    process, agent = start()
    with agent:
        assert agent.get_status().lock_reason == "start"
        with pytest.raises(AgentLockedError):
            agent.verify_token(token)
        agent.unlock(PASSPHRASE)
        assert agent.verify_token(token)
    process.kill()
    process.wait()
    process, agent = start()
    with agent:
        assert agent.verify_token(token)
    process.terminate()
    assert process.wait(START_SECONDS) == 0


def test_a_wrong_passphrase_that_is_handed_over_leaves_it_locked_and_the_log_says_so(home):
    protect(home)
    wrong = passphrase_file(home, "wrong")
    with serving(home, "--passphrase-file", wrong) as daemon, daemon.client() as agent:
        assert agent.get_status().locked
    assert "that is not the passphrase of the key file" in daemon.log.read_text()


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda path: os.chmod(path, 0o644), "it is open to others"),
        (lambda path: os.truncate(path, 0), "an empty passphrase"),
        (lambda path: os.unlink(path), "cannot be read"),
    ],
)
def test_a_passphrase_that_is_not_where_the_settings_say_ends_the_start(home, break_it, says):
    protect(home)
    path = passphrase_file(home)
    break_it(path)
    ended = home.agentd("serve", "--passphrase-file", path)
    assert (ended.returncode, says in ended.stderr) == (78, True), ended.stderr
    assert "Traceback" not in ended.stderr


def test_init_makes_a_key_file_with_a_passphrase(home):
    ended = home.agentd("init", "--passphrase-file", passphrase_file(home))
    assert ended.returncode == 0, ended.stderr
    assert (home.state / "keys" / "root.key").read_text().startswith("k4.local-pw.")
    with unlocked(home) as daemon, daemon.client() as agent:
        assert agent.get_status().protected


def test_init_asks_for_one_on_a_terminal_only(home):
    ended = home.agentd("init", "--passphrase")
    assert (ended.returncode, "--passphrase-fd" in ended.stderr) == (78, True), ended.stderr
    assert not (home.state / "keys").exists()


def test_passphrases_are_never_in_arguments_or_in_the_environment(home):
    assert "--passphrase TEXT" not in home.agentd("serve", "--help").stdout
    assert "PASSPHRASE" not in " ".join(name for name in home.environ if name.startswith("AGENTD"))


def test_a_hundred_wrong_passphrases_of_one_process_hold_another_up_for_one_try_at_most(home):
    protect(home)
    script = (
        "import sys, concurrent.futures as f\n"
        "from agentd_client import Client, PassphraseError\n"
        "def wrong(n):\n"
        "    with Client.connect(sys.argv[1], timeout=120) as agent:\n"
        "        try: agent.unlock(f'wrong {n}')\n"
        "        except PassphraseError: print('refused', flush=True)\n"
        "with f.ThreadPoolExecutor(100) as pool: list(pool.map(wrong, range(100)))\n"
    )
    with serving(home) as daemon, daemon.client() as agent:
        attacker = subprocess.Popen(
            [sys.executable, "-c", script, str(home.socket)], env=home.environ, stdout=subprocess.PIPE
        )
        try:
            assert attacker.stdout is not None
            attacker.stdout.readline()  # it is at work
            agent.unlock(PASSPHRASE)
            status = agent.get_status()
            assert not status.locked
            assert 1 <= status.wrong_passphrases <= 3
        finally:
            attacker.kill()
            attacker.communicate()


def kinds(daemon: Daemon) -> list[str]:
    with daemon.client() as agent:
        return [entry.kind for entry in agent.list_audit().entries]


def test_the_audit_log_tells_of_locks_and_of_wrong_passphrases(home):
    protect(home)
    with unlocked(home) as daemon:
        with daemon.client() as agent:
            agent.lock()
            with pytest.raises(PassphraseError):
                agent.unlock("wrong")
            agent.unlock(PASSPHRASE)
        assert kinds(daemon)[:3] == ["passphraseRefused", "unlocked", "locked"]


GUESSING = """
import os, socket, sys
path, requests = sys.argv[1], bytes.fromhex(sys.argv[2])
for _ in range(70):
    if os.fork() == 0:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.sendall(requests)
        connection.recv(4096)
        os.write(1, b".")
        sys.stdin.read()
        os._exit(0)
sys.stdin.read()
"""


def test_seventy_processes_that_guess_neither_keep_the_right_passphrase_out_nor_before_them(home):
    # The reply to the second request says that the first one has its place among those who wait.
    wrong = [0, 1, "unlock", [{"passphrase": b"wrong"}]], [0, 2, "getStatus", [{}]]
    requests = b"".join(map(msgpack.packb, wrong)).hex()
    protect(home)
    with unlocked(home) as daemon, daemon.client(timeout=120) as agent:
        agent.lock()
        command = [sys.executable, "-I", "-S", "-c", GUESSING, str(home.socket), requests]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guessing:
            try:
                assert guessing.stdout is not None
                begun = 0
                while begun < 70:
                    begun += len(guessing.stdout.read1())
                before = agent.get_status().wrong_passphrases
                agent.unlock(PASSPHRASE)
            finally:
                guessing.kill()
        tried = agent.get_status().wrong_passphrases - before
        assert tried <= 4, "one that was under way, one that began meanwhile, and two turns"
