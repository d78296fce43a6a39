from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agentd_client import AgentUnreachableError, Client, InvalidExpiryError

ALREADY_SERVING = 73
CONFIG = 78


def test_the_first_start_makes_keys_and_store_and_says_where(home, daemon):
    assert {path.name for path in home.state.iterdir()} == {"keys", "store"}
    log = daemon.log.read_text()
    assert str(home.state / "keys") in log
    assert str(home.socket) in log


def test_socket_keys_and_store_are_private_under_any_umask(home):
    before = os.umask(0)
    try:
        daemon = home.start().ready()
    finally:
        os.umask(before)
    for path in [home.socket.parent, home.state / "keys", home.state / "store"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    for path in [home.socket, *(home.state / "keys").iterdir(), *(home.state / "store").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert daemon.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_drains_exits_0_and_removes_its_socket(home, number):
    daemon = home.start().ready()
    assert daemon.signal(number) == 0
    assert not home.socket.exists()
    with pytest.raises(AgentUnreachableError):
        Client.connect(str(home.socket), timeout=0)


def test_of_20_agents_started_at_once_one_serves_and_19_exit_with_the_documented_code(home):
    daemons = [home.start() for _ in range(20)]
    try:
        daemons[0].ready()
        codes = []
        while len(codes) < 19:
            pid, status = os.waitpid(-1, 0)
            (finished,) = (daemon for daemon in daemons if daemon.process.pid == pid)
            finished.process.returncode = os.waitstatus_to_exitcode(status)
            codes.append(finished.process.returncode)
        assert codes == [ALREADY_SERVING] * 19
        with daemons[0].client() as agent:
            assert agent.verify_token(agent.create_token().token)
    finally:
        serving = [daemon for daemon in daemons if daemon.process.returncode is None]
        assert [daemon.stop() for daemon in serving] == [0]


def test_a_second_agent_is_told_who_serves(home, daemon):
    second = home.agentd("serve")
    assert second.returncode == ALREADY_SERVING
    assert str(home.socket) in second.stderr
    assert "Traceback" not in second.stderr


def test_a_second_agent_on_another_socket_cannot_share_the_store(home, daemon):
    second = home.agentd("serve", "--socket", str(home.runtime / "other" / "agent.sock"))
    assert second.returncode not in (0, 1)
    assert "store" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_stale_socket_is_taken_over(home):
    home.start().ready().signal(signal.SIGKILL)
    assert home.socket.is_socket()
    daemon = home.start().ready()
    assert daemon.stop() == 0


def test_a_socket_path_of_108_bytes_is_refused_by_name(home):
    path = str(home.path / ("x" * (108 - len(str(home.path)) - 1)))
    assert len(path) == 108
    refused = home.agentd("serve", "--socket", path)
    assert refused.returncode == CONFIG
    assert path in refused.stderr
    assert "108" in refused.stderr


def test_sessions_survive_a_restart(home):
    daemon = home.start().ready()
    with daemon.client() as agent:
        created = agent.create_token(label="before")
    assert daemon.stop() == 0
    daemon = home.start().ready()
    with daemon.client() as agent:
        assert agent.inspect_token(created.token).session.label == "before"
    assert daemon.stop() == 0


def test_a_store_whose_key_file_is_gone_is_refused_and_no_key_is_made(home):
    home.start().ready().stop()
    (home.state / "keys" / "root.key").unlink()
    refused = home.agentd("serve")
    assert refused.returncode == CONFIG
    assert "root.key" in refused.stderr
    assert not (home.state / "keys" / "root.key").exists()


def test_a_store_beside_another_key_file_is_refused_and_kept(home):
    home.start().ready().stop()
    key = (home.state / "keys" / "root.key").read_bytes()
    (home.state / "keys" / "root.key").write_bytes(bytes(32))
    refused = home.agentd("serve")
    assert refused.returncode not in (0, 1)
    assert "Traceback" not in refused.stderr
    (home.state / "keys" / "root.key").write_bytes(key)
    assert home.start().ready().stop() == 0


def test_settings_come_from_the_file_and_a_wrong_one_is_named(home):
    (home.path / "config" / "agentd").mkdir(parents=True)
    config = home.path / "config" / "agentd" / "config.toml"
    config.write_text('session_expiry = "never"\n')
    daemon = home.start().ready()
    with daemon.client() as agent:
        assert agent.create_token().expires_at is None
    daemon.stop()
    for text, named in [
        ("session_expriy = 1", "session_expriy"),
        ("session_expiry = 'soon'", "session_expiry"),
        ("log_level = 'loud'", "log_level"),
        ("drain_seconds = -1", "drain_seconds"),
        ("= 1", "TOML"),
    ]:
        config.write_text(text)
        refused = home.agentd("serve")
        assert refused.returncode == CONFIG
        assert named in refused.stderr


def test_the_agent_makes_no_core_dump_and_its_memory_is_closed_to_others_of_its_user(daemon):
    limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    get_dumpable = 3  # PR_GET_DUMPABLE, prctl(2): what /proc and ptrace go by
    code = f"from agentd import process; process.harden(); import ctypes; print(ctypes.CDLL(None).prctl({get_dumpable}))"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout == "0\n"


def test_the_log_holds_no_token(home, daemon):
    with daemon.client() as agent:
        tokens = [agent.create_token().token for _ in range(3)]
        for token in tokens:
            agent.verify_token(token)
            agent.revoke_token(token)
        agent.verify_token("v4.local.secret-looking")
    log = daemon.log.read_text()
    assert not any(token in log for token in [*tokens, "secret-looking"])


def test_the_status_counts_what_was_asked_and_what_was_refused(home, daemon):
    with daemon.client() as agent:
        # Whoever asked before whether the agent is there has hung up; the agent notices in a moment.
        while (before := agent.get_status().counters).connections_open > 1:
            pass
        with pytest.raises(InvalidExpiryError):
            agent.create_token(expiry=-1)
        agent.create_token()
        with socket.socket(socket.AF_UNIX) as malformed:
            malformed.connect(str(home.socket))
            malformed.sendall(b"\xc1")
            while malformed.recv(4096):
                pass  # why it is cut off
        after = agent.get_status().counters
    changes = {name: new - old for name, old, new in zip(before._fields, before, after, strict=True)}
    assert changes == {
        "connections": 1,
        "connections_open": 0,
        "connections_cut_off": 1,
        "peers_refused": 0,
        "requests": 3,
        "refusals": 1,
        "commits": 1,
    }


def test_init_makes_everything_without_serving_and_fresh_begins_anew(home):
    made = home.agentd("init")
    assert made.returncode == 0
    assert str(home.state) in made.stdout
    key = (home.state / "keys" / "root.key").read_bytes()
    assert home.agentd("init").returncode == 0
    assert (home.state / "keys" / "root.key").read_bytes() == key, "what is there stays"
    assert home.agentd("init", "--fresh").returncode == 64, "--fresh wants --yes where nobody can be asked"
    assert home.agentd("init", "--fresh", "--yes").returncode == 0
    assert (home.state / "keys" / "root.key").read_bytes() != key


def test_init_while_an_agent_serves_is_refused(home, daemon):
    refused = home.agentd("init", "--fresh", "--yes")
    assert refused.returncode == ALREADY_SERVING
    with daemon.client() as agent:
        assert agent.verify_token(agent.create_token().token)
