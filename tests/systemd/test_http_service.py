"""agentd-http.socket and agentd-http.service: token checks over HTTP, in a sandbox of their own."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from tests.systemd.user_manager import PROJECT, UserManager

UNIT, SERVICE = "agentd-http.socket", "agentd-http.service"
MANUAL = (PROJECT / "docs" / "operations.md").read_text()
MANUAL = MANUAL.partition("\n## Token checks over HTTP\n")[2].partition("\n## ")[0]
VERIFYING = re.findall(r"```ini\n(.*?)```", MANUAL, re.DOTALL)[-1]
"""The documented settings for a service that reaches the verify socket only."""


def edit(service: UserManager, unit: str, text: str) -> None:
    service.write(service.units / f"{unit}.d" / "override.conf", text)


@pytest.fixture
def checking(service):
    """The units as installed; each test enables them."""
    yield service
    service.systemctl("--quiet", "disable", "--now", UNIT)
    service.systemctl("stop", SERVICE, "agentd-verify.socket")
    service.run("systemctl", "--user", "reset-failed")
    for unit in (UNIT, SERVICE):
        service.remove(service.units / f"{unit}.d")
    service.systemctl("daemon-reload")


def enabled(service: UserManager) -> None:
    service.systemctl("daemon-reload")
    service.systemctl("--quiet", "enable", "--now", UNIT)


def status(service: UserManager, token: str | None = None, path: str = "/check", *where: str) -> int:
    """What curl gets; in the manager's own socket unless told otherwise."""
    where = where or ("--unix-socket", f"{service.runtime}/agentd/http.sock", f"http://localhost{path}")
    header = () if token is None else ("-H", f"Authorization: Bearer {token}")
    return int(service.done("curl", "-so", "/dev/null", "-w", "%{http_code}", *header, *where))


def new_token(service: UserManager, *options: str) -> str:
    service.done("agentctl", "--timeout", "30", "login", *options)
    return service.done("agentctl", "token").strip()


def test_they_are_installed_and_not_enabled(service):
    assert service.run("systemctl", "--user", "is-enabled", UNIT).stdout == "disabled\n"
    assert service.show("ActiveState", UNIT) == "inactive"
    text = service.outside(service.units / SERVICE).read_text()
    assert not re.search("@[A-Z_]+@", text)
    checked = service.run(
        "systemd-analyze", "--user", "verify", service.units / UNIT, service.units / SERVICE
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_first_request_starts_it_and_it_outlives_the_agents_restart(checking):
    enabled(checking)
    assert status(checking, path="/health") == 200, "and that started the agent"
    assert status(checking) == 401
    token = new_token(checking)
    assert status(checking, token) == 204
    checking.systemctl("restart", "agentd.socket", "agentd.service")
    assert status(checking, token) == 204
    checking.systemctl("stop", "agentd.socket", "agentd.service")
    assert status(checking, token) == 503
    checking.systemctl("start", "agentd.socket")
    assert status(checking, token) == 204


def test_it_serves_loopback_without_a_network_and_refuses_to_serve_more(checking):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    edit(checking, UNIT, f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n")
    edit(checking, SERVICE, '[Service]\nEnvironment="OPTIONS=--audience notes --allow-host notes.test"\n')
    enabled(checking)
    url = f"http://127.0.0.1:{port}/check"
    assert status(checking, new_token(checking, "--audience", "notes"), "", url) == 204
    assert status(checking, new_token(checking, "--audience", "mail"), "", url) == 401
    assert status(checking, None, "", "-H", "Host: notes.test", url) == 401
    assert status(checking, None, "", "-H", "Host: example.com", url) == 403

    checking.systemctl("stop", UNIT, SERVICE)
    edit(checking, UNIT, f"[Socket]\nListenStream=\nListenStream=0.0.0.0:{port}\n")
    checking.systemctl("daemon-reload")
    checking.systemctl("start", UNIT)
    checking.run("curl", "-s", "--max-time", "60", url)  # waits until the socket is closed
    assert checking.show("Result", UNIT) == "service-start-limit-hit"
    assert checking.show("ExecMainStatus", SERVICE) == "78"


def test_it_sees_the_agents_folder_and_neither_keys_nor_store_nor_settings(checking):
    enabled(checking)
    checking.write(checking.home / ".config/agentd/config.toml", "")
    new_token(checking)
    assert status(checking) == 401
    pid = int(checking.show("MainPID", SERVICE))
    seen = Path(f"/proc/{pid}/root")

    def listed(folder: Path | str) -> list[str]:
        return sorted(checking.done("ls", "-A", f"{seen}{folder}", root=True).split())

    assert checking.exists(checking.state / "keys" / "root.key")
    assert listed(checking.state) == []
    assert listed(checking.home / ".config/agentd") == []
    assert listed(checking.runtime) == ["agentd"]
    assert listed("/tmp") == []
    assert set(listed("/run")) <= {"user", "current-system"}
    mounts = checking.done("cat", f"/proc/{pid}/mountinfo", root=True)
    options = {line.split()[4]: line.split()[5] for line in mounts.splitlines()}
    writable = {at for at, given in options.items() if given.startswith("rw")}
    assert not any(at.startswith((str(checking.runtime), "/home")) or at == "/" for at in writable), writable
    found = checking.done("cat", f"/proc/{pid}/status", root=True)
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert f"\n{line}\n" in found
    interfaces = checking.done("cat", f"/proc/{pid}/net/dev", root=True).splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]


def test_with_the_documented_settings_it_reaches_the_verify_socket_only(checking):
    checking.systemctl("stop", "agentd.socket", "agentd.service")
    edit(checking, SERVICE, VERIFYING)
    enabled(checking)
    checking.systemctl("start", "agentd-verify.socket")
    checking.systemctl("start", "agentd.socket")
    token = new_token(checking, "--scope", "read")
    assert status(checking, token, "/check?scope=read") == 204
    assert status(checking, token, "/check?scope=write") == 403
    pid = checking.show("MainPID", SERVICE)
    folder = f"/proc/{pid}/root{checking.runtime}/agentd"
    assert checking.done("ls", "-A", folder, root=True).split() == ["verify.sock"]
    where = ("--unix-socket", f"{checking.runtime}/agentd/http.sock", "http://localhost/check")
    seen = checking.done("curl", "-si", "-H", f"Authorization: Bearer {token}", *where)
    assert "agentd-scopes: read" in seen
    assert re.search(r"^agentd-session:\s*$", seen, re.MULTILINE)


def test_systemds_own_analysis_puts_the_exposure_below_two(service):
    analysis = ("systemd-analyze", "security", "--offline=true", "--user", "--no-pager", "--threshold=20")
    said = service.done(*analysis, service.units / SERVICE)
    print(json.dumps(re.search("Overall exposure level.*", said).group()))
