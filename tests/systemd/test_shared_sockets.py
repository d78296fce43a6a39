"""agentd-verify.socket and agentd-ask.socket: sockets that systemd holds, for a group of other users."""

from __future__ import annotations

import json

import pytest

from tests.systemd.user_manager import AGENTS, AGENTS_GID, NAME, SYSTEM_PYTHON, UserManager

FOLDER = f"/run/agentd-{NAME}"
EDITED = f"""
[Socket]
ListenStream=
ListenStream={{}}
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


ASK_FOR_SESSION = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(60)
    sock.connect(sys.argv[1])
    sock.sendall(b"\\x94\\x00\\x01\\xacrequestToken\\x91\\x81\\xa6scopes\\x91\\xa4read")
    print(sock.recv(4096).hex())
"""
APPROVE = """
from agentd_client import Client
with Client.connect(timeout=60) as agent:
    while not (waiting := agent.list_requests().requests):
        pass
    (request,) = waiting
    agent.decide_request(request.id, "approve", expiry=60)
    print(request.socket, request.asker.uid, request.program.partition(",")[0])
"""


@pytest.fixture(params=["verify", "ask"])
def kind(request):
    return request.param


@pytest.fixture
def unit(kind):
    return f"agentd-{kind}.socket"


@pytest.fixture
def path(kind):
    return f"{FOLDER}/{kind}.sock"


@pytest.fixture
def serving(service, unit, path):
    """As docs/operations.md tells to do it."""
    service.done("mkdir", "-p", "-m", "750", FOLDER, root=True)
    service.done("chown", f"{NAME}:{AGENTS}", FOLDER, root=True)
    service.write(service.units / f"{unit}.d" / "override.conf", EDITED.format(path))
    service.systemctl("daemon-reload")
    service.systemctl("stop", "agentd.socket", "agentd.service")
    service.systemctl("--quiet", "enable", "--now", unit)
    service.systemctl("start", "agentd.socket")
    yield service
    service.systemctl("--quiet", "disable", "--now", unit)
    service.remove(service.units / f"{unit}.d")
    service.systemctl("daemon-reload")


def test_it_is_installed_and_not_enabled(service, unit):
    assert service.systemctl("is-system-running") in ("running\n", "degraded\n")
    assert service.run("systemctl", "--user", "is-enabled", unit).stdout == "disabled\n"
    assert service.show("ActiveState", unit) == "inactive"
    checked = service.run("systemd-analyze", "--user", "verify", service.units / unit)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_group_can_verify_tokens_there_and_nothing_else(serving, path):
    answer = asked_as(serving, path, "v4.local.none", AGENTS_GID)
    assert b"\xa9MALFORMED" in answer, "and that started the agent"
    serving.done("agentctl", "login", "--scope", "read")
    token = serving.done("agentctl", "token").strip()
    answer = asked_as(serving, path, token, AGENTS_GID)
    assert b"\xa5valid\xc3" in answer
    assert b"\xa6scopes\x91\xa4read" in answer
    assert b"session" not in answer
    assert "PermissionError" in asked_as(serving, path, token, 65534)
    assert "PermissionError" in asked_as(serving, f"{serving.runtime}/agentd/agent.sock", token, AGENTS_GID)
    status = json.loads(serving.done("agentctl", "--json", "status"))["agent"]
    assert status["socketPath"] == f"{serving.runtime}/agentd/agent.sock"
    serving.done("agentctl", "list")


@pytest.mark.parametrize("kind", ["ask"], indirect=True)
def test_the_group_can_ask_for_a_session_there_which_the_owner_grants(serving, path):
    nobody = ("setpriv", "--reuid=65534", f"--regid={AGENTS_GID}", "--clear-groups")
    python = serving.home / ".local/share/agentd/venv/bin/python"
    with serving.start(*nobody, SYSTEM_PYTHON, "-I", "-c", ASK_FOR_SESSION, path, root=True) as asking:
        assert serving.done(python, "-I", "-c", APPROVE) == "ask 65534 this one process\n"
        assert b"v4.local." in bytes.fromhex(asking.communicate(timeout=60)[0])


def test_a_restart_leaves_the_sockets_where_they_are(serving, path):
    serving.done("agentctl", "login")
    token = serving.done("agentctl", "token").strip()
    serving.systemctl("restart", "agentd.service")
    assert b"\xa5valid\xc3" in asked_as(serving, path, token, AGENTS_GID)
    serving.done("agentctl", "verify")
    mode = serving.done("stat", "-c", "%a %U %G", path, root=True)
    assert mode == f"660 {NAME} {AGENTS}\n"


def test_a_failed_start_tells_the_owner_why_and_others_only_that_it_failed(serving, path):
    serving.write(serving.home / ".config/agentd/config.toml", "nonsense = 1\n")
    answer = asked_as(serving, path, "v4.local.none", AGENTS_GID)
    assert b"START: the agent could not start: its owner is told why" in answer
    refused = serving.run("agentctl", "verify")
    assert "nonsense" in refused.stderr


def test_all_three_are_served_together(service):
    service.systemctl("stop", "agentd.socket", "agentd.service")
    units = ("agentd-verify.socket", "agentd-ask.socket", "agentd.socket")
    service.systemctl("start", *units)
    try:
        service.done("agentctl", "login")
        for kind in ("verify", "ask"):
            path = f"{service.runtime}/agentd/{kind}.sock"
            verified = service.done("sh", "-c", f"agentctl token | agentctl --socket {path} verify -")
            assert verified == "valid\n"
            refused = service.run("agentctl", "--socket", path, "list")
            assert "no method 'listSessions'" in refused.stderr
    finally:
        service.systemctl("stop", *units[:2])
