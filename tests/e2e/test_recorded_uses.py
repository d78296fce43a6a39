"""Who used which session, as `audit_uses` has the agent record it, at every socket."""

from __future__ import annotations

import os
import signal
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from agentd_client import Client
from agentd_client.protocol.results import AuditEntry
from tests.e2e.daemon import START_SECONDS, Daemon, serving
from tests.e2e.locked import PASSPHRASE, protect, unlocked
from tests.other_user import NOBODY, as_user, needs_root

OWNER, ME = os.geteuid(), os.getpid()


@pytest.fixture
def others():
    """Where the sockets for others are to be: in a folder that everybody may pass through."""
    with tempfile.TemporaryDirectory(prefix="agentd-others-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def configure(home, others):
    def configure(audit_uses: str) -> None:
        config = home.path / "config" / "agentd" / "config.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(
            f'audit_uses = "{audit_uses}"\n'
            f'verify_socket_path = "{others}/verify.sock"\nverify_socket_mode = "0666"\n'
            f'ask_socket_path = "{others}/ask.sock"\nask_socket_mode = "0666"\n'
        )

    return configure


def used(daemon: Daemon) -> list[AuditEntry]:
    with daemon.client() as agent:
        return [entry for entry in agent.list_audit().entries if entry.kind == "used"]


def times_used(daemon: Daemon) -> int:
    return sum(entry.times for entry in used(daemon))


def verify(path: Path, token: str, times: int = 1) -> list[bool]:
    with Client.connect(str(path), timeout=START_SECONDS, patience=0, agent_uid=OWNER) as agent:
        return [agent.verify_token(token) for _ in range(times)]


@pytest.mark.parametrize(("audit_uses", "times"), [("all", 9), ("first", 1), ("none", 0)])
def test_the_log_says_which_program_used_a_session(home, configure, others, audit_uses, times):
    configure(audit_uses)
    with serving(home) as daemon:
        with daemon.client() as agent:
            created = agent.create_token(label="desk")
            limited = agent.create_token(label="twice", max_uses=2)
            assert [agent.check_token(limited.token).valid for _ in range(3)] == [True, True, False]
            assert agent.inspect_token(created.token).valid
        for path in (home.socket, others / "verify.sock", others / "ask.sock"):
            assert verify(path, created.token, 3) == [True] * 3
        assert home.agentctl("verify", "-", input=created.token).returncode == 0
        counts, programs = Counter[tuple[str, bool]](), {}
        for entry in used(daemon):
            counts[entry.label, entry.peer_pid == ME] += entry.times
            programs[entry.label, entry.peer_pid == ME] = entry
        if audit_uses == "none":
            assert counts == {}
            return
        assert counts == {("desk", True): times, ("desk", False): 1, ("twice", True): min(times, 2)}
        other = programs["desk", False]
        assert (other.session_id, other.peer_uid, other.reason) == (created.id, OWNER, None)
        assert other.peer_exe is not None
        assert "python" in other.peer_exe, "which runs agentctl here"
        shown = home.agentctl("audit").stdout
        assert shown.count("\tused\t") >= 3
        assert not any(
            token.removeprefix("v4.local.")[:16] in shown for token in (created.token, limited.token)
        )


@needs_root
@pytest.mark.parametrize("name", ["verify.sock", "ask.sock"])
def test_another_user_is_named_too(home, configure, others, name):
    configure("all")
    with serving(home) as daemon:
        with daemon.client() as agent:
            created = agent.create_token()
        assert as_user(lambda: verify(others / name, created.token, 2)) == [True] * 2
        assert {(entry.session_id, entry.peer_uid) for entry in used(daemon)} == {(created.id, NOBODY)}
        assert times_used(daemon) == 2


def test_a_kill_loses_only_what_was_counted_since_the_last_write(home, configure):
    configure("all")
    with serving(home) as daemon:
        with daemon.client() as agent:
            created = agent.create_token()
        assert verify(home.socket, created.token, 4) == [True] * 4
        assert daemon.stop() == 0
    with serving(home) as daemon:
        assert times_used(daemon) == 4
        assert verify(home.socket, created.token, 3) == [True] * 3
        assert times_used(daemon) == 7
        daemon.signal(signal.SIGKILL)
    with serving(home) as daemon:
        assert 4 <= times_used(daemon) <= 7


def test_a_lock_writes_what_was_counted(home, configure):
    protect(home)
    configure("all")
    with unlocked(home) as daemon:
        with daemon.client() as agent:
            created = agent.create_token()
            assert [agent.verify_token(created.token) for _ in range(3)] == [True] * 3
            agent.lock()
            agent.unlock(PASSPHRASE)
        daemon.signal(signal.SIGKILL)
    with unlocked(home) as daemon:
        assert times_used(daemon) == 3
