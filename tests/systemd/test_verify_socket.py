"""agentd-verify.socket: a verify socket that systemd holds, for a group of other users."""

from __future__ import annotations

import json

import pytest

from tests.systemd.user_manager import AGENTS, AGENTS_GID, NAME, SYSTEM_PYTHON, UserManager

FOLDER = f"/run/agentd-{NAME}"
VERIFY_PATH = f"{FOLDER}/verify.sock"
UNIT = "agentd-verify.socket"
EDITED = f"""
[Socket]
ListenStream=
ListenStream={VERIFY_PATH}
SocketGroup={AGENTS}
SocketMode=0660
"""
# Without our packages: the caller has an environment of its own.
ASK = """
import socket, sys
path, token = sys.argv[1], sys.argv[2].encode()
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(30)
    sock.connect(path)
    sock.sendall(b"\\x94\\x00\\x01\\xabverifyToken\\x91\\x81\\xa5token\\xda" + len(token).to_bytes(2, "big") + token)
    print(sock.recv(4096).hex())
"""


def asked_as(service: UserManager, path: str, token: str, gid: int) -> bytes | str:
    """The answer's bytes, or how it failed."""
    nobody = ("setpriv", "--reuid=65534", f"--regid={gid}", "--clear-groups")
    ended = service.run(*nobody, SYSTEM_PYTHON, "-I", "-c", ASK, path, token, root=True)
    if ended.returncode != 0:
        return ended.stderr.splitlines()[-1]
    return bytes.fromhex(ended.stdout)


@pytest.fixture
def verifying(service):
    """As docs/operations.md tells to do it."""
    service.done("mkdir", "-p", "-m", "750", FOLDER, root=True)
    service.done("chown", f"{NAME}:{AGENTS}", FOLDER, root=True)
    service.write(service.units / f"{UNIT}.d" / "override.conf", EDITED)
    service.systemctl("daemon-reload")
    service.systemctl("stop", "agentd.socket", "agentd.service")
    service.systemctl("--quiet", "enable", "--now", UNIT)
    service.systemctl("start", "agentd.socket")
    yield service
    service.systemctl("--quiet", "disable", "--now", UNIT)
    service.remove(service.units / f"{UNIT}.d")
    service.systemctl("daemon-reload")


def test_it_is_installed_and_not_enabled(service):
    assert service.systemctl("is-system-running") in ("running\n", "degraded\n")
    assert service.run("systemctl", "--user", "is-enabled", UNIT).stdout == "disabled\n"
    assert service.show("ActiveState", UNIT) == "inactive"
    checked = service.run("systemd-analyze", "--user", "verify", service.units / UNIT)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_group_can_verify_tokens_there_and_nothing_else(verifying):
    answer = asked_as(verifying, VERIFY_PATH, "v4.local.none", AGENTS_GID)
    assert b"\xa9MALFORMED" in answer, "and that started the agent"
    verifying.done("agentctl", "login", "--scope", "read")
    token = verifying.done("agentctl", "token").strip()
    answer = asked_as(verifying, VERIFY_PATH, token, AGENTS_GID)
    assert b"\xa5valid\xc3" in answer
    assert b"\xa6scopes\x91\xa4read" in answer
    assert b"session" not in answer
    assert "PermissionError" in asked_as(verifying, VERIFY_PATH, token, 65534)
    assert "PermissionError" in asked_as(
        verifying, f"{verifying.runtime}/agentd/agent.sock", token, AGENTS_GID
    )
    status = json.loads(verifying.done("agentctl", "--json", "status"))["agent"]
    assert status["socketPath"] == f"{verifying.runtime}/agentd/agent.sock"
    assert "unknown method" not in verifying.done("agentctl", "list")


def test_a_restart_leaves_both_sockets_where_they_are(verifying):
    verifying.done("agentctl", "login")
    token = verifying.done("agentctl", "token").strip()
    verifying.systemctl("restart", "agentd.service")
    assert b"\xa5valid\xc3" in asked_as(verifying, VERIFY_PATH, token, AGENTS_GID)
    verifying.done("agentctl", "verify")
    mode = verifying.done("stat", "-c", "%a %U %G", VERIFY_PATH, root=True)
    assert mode == f"660 {NAME} {AGENTS}\n"


def test_a_failed_start_tells_the_owner_why_and_others_only_that_it_failed(verifying):
    verifying.write(verifying.home / ".config/agentd/config.toml", "nonsense = 1\n")
    answer = asked_as(verifying, VERIFY_PATH, "v4.local.none", AGENTS_GID)
    assert b"START: the agent could not start: its owner is told why" in answer
    refused = verifying.run("agentctl", "verify")
    assert "nonsense" in refused.stderr
