"""`agentd serve` as a service manager runs it: a socket handed over, readiness, the watchdog, the stop."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from agentd import main, status
from agentd.approval.limits import MAX_WAITING
from agentd.config import load
from agentd.locking import LockMark
from agentd.process_watch import MAX_WATCHED
from agentd.server import askers, owner_only, verifiers
from agentd.server.admission import OVER_LIMIT_SHARE
from agentd.sessions import SystemClock
from agentd.systemd import Passed
from agentd_client import Client, KeyFileError, SessionManagerNotRunningError, StartError, StoreError
from tests.agentd.socket_passing import listening, served
from tests.e2e.daemon import START_SECONDS, serving

LOGGER = logging.getLogger("agentd.test")


def stopped(agent: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    agent.send_signal(number)
    return ended(agent)


def ended(agent: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = agent.communicate(timeout=START_SECONDS)
    assert "Traceback" not in err
    return agent.returncode, err


def connect(home) -> Client:
    return Client.connect(str(home.socket), timeout=START_SECONDS)


def heard(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())


def waiting_request(home) -> socket.socket:
    """A client that has connected and sent `getStatus`."""
    waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    waiting.settimeout(START_SECONDS)
    waiting.connect(str(home.socket))
    waiting.sendall(bytes.fromhex("94 00 01 a9") + b"getStatus" + bytes.fromhex("91 80"))
    return waiting


# --- the socket ---


def test_it_serves_the_socket_that_was_passed_and_leaves_it_for_the_next_agent(home, listener):
    agent = served(home, listener)
    with connect(home) as client:
        token = client.create_token().token
        assert client.get_status().socket_path == str(home.socket)
    assert stopped(agent)[0] == 0
    assert home.socket.is_socket(), "it is the manager's to remove"
    with waiting_request(home) as waiting:  # before there is an agent
        agent = served(home, listener)
        assert b"agentId" in waiting.recv(4096)
        with connect(home) as client:
            assert client.verify_token(token)
        assert stopped(agent)[0] == 0


def test_it_serves_what_systemd_socket_activate_hands_over(home):
    if shutil.which("systemd-socket-activate") is None:
        pytest.skip("systemd-socket-activate is missing")
    home.socket.parent.mkdir(mode=0o700)
    passed_on = [f"--setenv={name}" for name in home.environ if name.startswith(("XDG", "HOME", "COVERAGE"))]
    agent = subprocess.Popen(
        [
            "systemd-socket-activate",
            f"--listen={home.socket}",
            *passed_on,
            sys.executable,
            "-m",
            "agentd",
            "serve",
        ],
        env=home.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with connect(home) as client:
        assert client.get_status().pid == agent.pid
    assert stopped(agent)[0] == 0


def test_waiting_clients_learn_that_another_agent_uses_the_store(home):
    other = str(home.runtime / "other.sock")
    with listening(other) as listener, serving(home), Client.connect(other, timeout=START_SECONDS) as client:
        agent = served(home, listener)
        with pytest.raises(StartError, match="another agent uses this store"):
            client.get_status()
        assert ended(agent)[0] == 73


async def test_the_passed_socket_is_the_callers_until_the_agent_is_ready_and_then_closed_here(home, listener):
    settings = load(socket_path=str(home.socket), state_path=str(home.state))

    def ask_and_stop() -> None:
        with connect(home) as client:
            client.hello()
        os.kill(os.getpid(), signal.SIGTERM)

    passed = listener.dup()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, ask_and_stop)
        await main.serve(settings, LOGGER, Passed(passed))
    assert passed.fileno() == -1, "who waits now is left to the next agent"

    (settings.keys_path / "root.key").unlink()
    with listener.dup() as passed:
        with pytest.raises(KeyFileError):
            await main.serve(settings, LOGGER, Passed(passed))
        assert passed.fileno() != -1, "waiting clients still need an answer"


# --- a start that fails ---


def test_waiting_clients_learn_why_the_start_failed_and_the_next_start_serves_the_next(home, listener):
    config = home.path / "config" / "agentd" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("nonsense = 1")
    with ThreadPoolExecutor(4) as pool:
        clients = [connect(home) for _ in range(4)]
        asked = [pool.submit(client.create_token) for client in clients]
        with waiting_request(home) as waiting:  # the last one to come, so all the others are there too
            agent = served(home, listener)
            for one in asked:
                with pytest.raises(StartError, match=r"the agent could not start: .*nonsense"):
                    one.result(START_SECONDS)
            assert b"START: the agent could not start" in waiting.recv(4096)
            assert waiting.recv(1) == b""
        code, err = ended(agent)
        assert (code, err.count("\n")) == (78, 1)

        config.unlink()
        agent = served(home, listener)
        assert clients[0].get_status().sessions == 0, "nothing of it was carried out"
        for client in clients:
            client.close()
    assert stopped(agent)[0] == 0


def test_waiting_clients_learn_that_the_verify_socket_cannot_be_made(home, listener):
    in_the_way = home.path / "verify.sock"
    in_the_way.touch()
    config = home.path / "config" / "agentd" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f"verify_socket_path = '{in_the_way}'")
    with waiting_request(home) as waiting:
        agent = served(home, listener)
        assert b"is in the way and not a socket" in waiting.recv(4096)
    assert ended(agent)[0] == 78


@pytest.mark.parametrize(("arguments", "code"), [(("serve", "--nope"), 64), (("frob",), 64)])
def test_waiting_clients_learn_of_a_wrong_command_line(home, listener, arguments, code):
    with connect(home) as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.get_status)
        agent = served(home, listener, *arguments)
        with pytest.raises(StartError, match="No such"):
            asked.result(START_SECONDS)
    assert ended(agent)[0] == code


def test_an_idle_connection_is_closed_at_the_end(home, listener):
    with connect(home), socket.socket(socket.AF_UNIX) as silent:
        silent.settimeout(START_SECONDS)
        silent.connect(str(home.socket))
        agent = served(home, listener, "frob")
        assert silent.recv(1) == b""
    assert ended(agent)[0] == 64


# --- what the manager hears ---


def test_the_manager_hears_ready_once_it_answers_and_the_status_and_the_stop(home, manager):
    with serving(home, environ={"NOTIFY_SOCKET": manager.getsockname()}) as agent:
        assert heard(manager) == {"READY": "1", "STATUS": "serving; open sessions: 0"}
        with Client.connect(str(home.socket), timeout=START_SECONDS, patience=0) as client:
            client.hello()
        assert agent.stop() == 0
    stopping = heard(manager)
    assert stopping["STOPPING"] == "1"
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) == (5 + main.CLOSING_SECONDS) * 1_000_000


def test_the_watchdog_is_fed_and_the_status_follows(home, manager):
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "60000"}
    with serving(home, environ=environ) as agent:
        assert heard(manager)["READY"] == "1"
        assert heard(manager) == {"WATCHDOG": "1", "STATUS": "serving; open sessions: 0"}
        with agent.client() as client:
            client.create_token()
        while heard(manager) != {"WATCHDOG": "1", "STATUS": "serving; open sessions: 1"}:
            pass


def test_ready_is_sent_again_until_the_manager_has_room(home, manager):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as chatter:
        chatter.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while chatter.sendto(b"CHATTER=1", manager.getsockname()):
                sent += 1
    with serving(home, environ={"NOTIFY_SOCKET": manager.getsockname()}):  # and it answers meanwhile
        assert [heard(manager) for _ in range(sent)] == [{"CHATTER": "1"}] * sent
        assert heard(manager)["READY"] == "1"


def test_keys_that_cannot_be_locked_are_a_warning(home):
    limited = ["prlimit", "--memlock=0"]
    if os.geteuid() == 0:  # who may lock whatever the limit is
        limited = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", *limited]
    if shutil.which(limited[0]) is None:
        pytest.skip(f"{limited[0]} is missing")
    agent = subprocess.Popen(
        [*limited, sys.executable, "-m", "agentd", "serve"],
        env=home.environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    with connect(home) as client:
        assert not client.get_status().memory_locked
    code, err = stopped(agent)
    assert code == 0
    assert "WARNING keys may be swapped to disk" in err


# --- file descriptors ---


def test_the_limit_of_open_files_covers_every_connection_and_every_watched_process():
    connections = sum(
        int(admission.connections * (1 + OVER_LIMIT_SHARE))
        for admission in (owner_only(), verifiers(), askers())
    )
    assert connections + MAX_WATCHED + MAX_WAITING + 100 <= main.MAX_DESCRIPTORS
    unit = (Path(main.__file__).parent / "units" / "agentd.service").read_text()
    assert int(re.search(r"^LimitNOFILE=(\d+)$", unit, re.MULTILINE)[1]) >= main.MAX_DESCRIPTORS


@pytest.mark.parametrize(
    ("limits", "soft", "is_told"),
    [(f"256:{main.MAX_DESCRIPTORS}", main.MAX_DESCRIPTORS, False), ("256:512", 512, True)],
)
def test_the_agent_raises_its_limit_of_open_files_or_says_that_it_is_too_low(home, limits, soft, is_told):
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit is missing")
    agent = subprocess.Popen(
        ["prlimit", f"--nofile={limits}", sys.executable, "-m", "agentd", "serve"],
        env=home.environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    with connect(home) as client:
        pid = client.get_status().pid
        assert int(re.search(r"Max open files +(\d+)", Path(f"/proc/{pid}/limits").read_text())[1]) == soft
    code, err = stopped(agent)
    assert code == 0
    warned = f"WARNING {main.MAX_DESCRIPTORS} open files may be needed: raise RLIMIT_NOFILE"
    assert (warned in err) == is_told


async def test_the_status_of_an_agent_that_cannot_know_says_why(tmp_path):
    settings = load(socket_path=str(tmp_path / "s"), state_path=str(tmp_path / "state"))
    agent = SimpleNamespace(core=None)
    assert status.status_line(agent) == "locked; agentctl unlock unlocks it"
    async with main.running_core(settings, LOGGER, SystemClock()) as agent.core:
        assert status.status_line(agent) == "serving; open sessions: 0"
    assert status.status_line(agent) == SessionManagerNotRunningError().sentence


# --- a store that fails ---


def test_a_store_that_fails_ends_the_agent_with_74_so_that_it_is_started_again(home, manager):
    if shutil.which("strace") is None:
        pytest.skip("strace is missing")
    failing = ["strace", "-f", "-qq", "-o", str(home.path / "trace"), "-e", "trace=fdatasync,fsync,msync"]
    with serving(home) as agent, agent.client() as client:
        token = client.create_token().token  # so that the next agent writes nothing on its own
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "100000"}
    traced = subprocess.Popen(
        [*failing, "-e", "inject=fdatasync:error=EIO", sys.executable, "-m", "agentd", "serve"],
        env=home.environ | environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    with connect(home) as client:
        assert client.verify_token(token)
        with pytest.raises(StoreError):
            client.create_token()
    code, err = ended(traced)
    assert code == 74
    assert err.splitlines()[-1].startswith("agentd: ")
    with serving(home) as agent, agent.client() as client:
        assert client.verify_token(token)


# --- init ---


def test_beginning_anew_forgets_that_the_agent_was_locked(home):
    settings = load(socket_path=str(home.socket), state_path=str(home.state))
    trio.run(main.init, settings, LOGGER, False)
    mark = LockMark(settings.lock_mark_path)
    mark.set()
    trio.run(main.init, settings, LOGGER, False)
    assert mark.is_set(), "what exists stays"
    trio.run(main.init, settings, LOGGER, True)
    assert not mark.is_set()
