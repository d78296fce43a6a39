"""docs/recipes/ssh.md, as it stands there: a real sshd on loopback, which another user runs if it can be one."""

from __future__ import annotations

import os
import re
import shlex
import socket
import stat
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from agentd_client import ForeignAgentError
from tests.e2e.test_shared_sockets import ask
from tests.other_user import as_user, needs_root

from . import recipes
from .other_users import served_as
from .proxies import needs

PAGE = "ssh.md"
ADDRESS = "http://127.0.0.1:8000/"
BUILDER = 1  # sshd wants a user that the machine knows: daemon
SSHD = "/usr/sbin/sshd"
LONG_SECONDS = 60.0

pytestmark = [needs_root, needs("ssh", "ssh-keygen", "curl", SSHD)]


class Machine:
    """The other machine: an sshd with a configuration, host key and authorized key of its own."""

    def __init__(self, folder: Path, page: Path) -> None:
        self.folder = folder  # the user's own; in the page it is /home/builder
        self.socket = folder / "agentd-me.sock"
        self.settings = (page / "sshd_config").read_text()
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", page / name], check=True)
        key = (page / "user.pub").read_text()
        restricted = (page / "authorized_keys").read_text().replace("ssh-ed25519 AAAA...\n", key)
        assert restricted.endswith(key)
        for name, content in (("host", (page / "host").read_text()), ("authorized_keys", restricted)):
            (folder / name).write_text(content)
            (folder / name).chmod(0o600)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (page / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {(page / 'host.pub').read_text()}")
        (page / "ssh_config").write_text(
            f"Host server\n  HostName 127.0.0.1\n  Port {self.port}\n  IdentityFile {page}/user\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {page}/known_hosts\n"
        )

    @contextmanager
    def serving(self, settings: str | None = None) -> Iterator[None]:
        """Run sshd in the foreground, with the page's settings or others."""
        (self.folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {self.folder}/host\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nPidFile none\nStrictModes no\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            + (self.settings if settings is None else settings)
        )
        for path in (self.folder, *self.folder.iterdir()):
            os.chown(path, BUILDER, BUILDER)
        command = [SSHD, "-D", "-e", "-f", f"{self.folder}/sshd_config"]
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, user=BUILDER, group=BUILDER, extra_groups=[]
        ) as sshd:
            try:
                assert sshd.stderr is not None
                said = sshd.stderr.readline()
                assert "Server listening" in said, said
                yield
            finally:
                sshd.terminate()


@pytest.fixture
def machine(tmp_path):
    recipes.write_files(PAGE, tmp_path)
    with tempfile.TemporaryDirectory(prefix="agentd-") as folder:
        yield Machine(Path(folder), tmp_path)
        os.chown(folder, os.geteuid(), os.getegid())


@pytest.fixture
def ssh(agent, machine, tmp_path):
    """The page's command, with the paths of this test, as somebody who may log in."""
    (block,) = re.findall(r"```sh\n(ssh .*?)```", (recipes.RECIPES / PAGE).read_text(), re.S)
    for word, other in (
        ("/run/user/1000/agentd/verify.sock", agent.verify_socket_path),
        ("/home/builder/agentd-me.sock", str(machine.socket)),
        ("builder@server", "daemon@server"),
        ("-L 8000:127.0.0.1:8000", ""),
    ):
        assert word in block
        block = block.replace(word, other)
    return ["ssh", "-F", f"{tmp_path}/ssh_config", *shlex.split(block.replace("\\\n", ""))[1:]]


@contextmanager
def connected(ssh: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Ssh, once it has forwarded the socket or ended; what it wrote from then on can be read."""
    with subprocess.Popen([*ssh, "-v"], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if "remote forward success" in line or "remote port forwarding failed" in line:
                    break
            else:
                raise AssertionError("".join(said))
            yield process
        finally:
            process.terminate()
            process.communicate()


def program(machine: Machine, page: Path) -> str:
    shown = (page / "build_server.py").read_text()
    for word, other in (("/home/builder/agentd-me.sock", str(machine.socket)), ("8000", "0")):
        assert word in shown
        shown = shown.replace(word, other)
    return shown


def test_the_recipe_runs(agent, machine, ssh, tmp_path):
    shown = recipes.transcript(PAGE)
    with machine.serving(), served_as(BUILDER, program(machine, tmp_path)) as url:
        created = agent.create_token(scopes=["build"], audience=["builder"])
        headers = {"Authorization": f"Bearer {created.token}"}
        assert httpx.get(url, headers=headers).status_code == 503
        with connected(ssh):
            assert recipes.carried_out(shown, tmp_path, (ADDRESS, f"{url}/")) == shown
            assert httpx.get(url, headers=headers).status_code == 200
            agent.revoke(created)
            assert httpx.get(url, headers=headers).status_code == 401
        assert httpx.get(url, headers=headers).status_code == 503, "ssh ended"


def test_each_side_sees_the_user_of_ssh_on_its_side(agent, machine, ssh):
    token = agent.create_token().token
    with machine.serving(), connected(ssh) as process:
        found = machine.socket.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, BUILDER)

        def listener() -> int:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(machine.socket))
                return struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]

        assert as_user(listener, BUILDER) == BUILDER
        assert as_user(ask(machine.socket, "verify_token", token, agent_uid=None), BUILDER) is True
        refused = as_user(ask(machine.socket, "verify_token", token, agent_uid=os.geteuid()), BUILDER)
        assert refused == [ForeignAgentError.__name__]
        assert as_user(listener) == ["PermissionError"], "a third user"
        assert as_user(ask(machine.socket, "hello", agent_uid=None), BUILDER)[2] == ["hello", "verifyToken"]

        assert as_user(ask(machine.socket, "verify_token", "v4.local.x", agent_uid=None), BUILDER) is False
        entries = []
        while not entries:  # the answer does not wait for the audit log
            entries = [entry for entry in agent.client.list_audit().entries if entry.kind == "refused"]
        assert (entries[0].peer_uid, entries[0].peer_pid) == (os.geteuid(), process.pid)


@pytest.mark.parametrize(
    "ours", [[], ["-o", "StreamLocalBindUnlink=yes"]], ids=["default", "our own setting"]
)
def test_by_default_a_socket_that_was_left_behind_is_in_the_way(machine, ssh, ours):
    with machine.serving(""):
        with connected(ssh):
            pass
        assert machine.socket.is_socket()
        with connected(ssh + ours) as process:
            assert process.wait(LONG_SECONDS) == 255


def test_with_the_setting_the_last_who_connects_has_the_socket(agent, machine, ssh):
    with machine.serving(), connected(ssh) as first:
        before = machine.socket.stat().st_ino
        with connected(ssh) as second:
            assert machine.socket.stat().st_ino != before
            token = agent.create_token().token
            assert as_user(ask(machine.socket, "verify_token", token, agent_uid=None), BUILDER) is True
            assert (first.poll(), second.poll()) == (None, None), "and the first is not told"


def test_the_mask_decides_who_may_connect(machine, ssh):
    with machine.serving("StreamLocalBindMask 0117\n"), connected(ssh):
        assert stat.S_IMODE(machine.socket.stat().st_mode) == 0o660
