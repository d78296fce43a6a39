"""A socket file that others may reach: group and mode, and what is asked of its folder."""

from __future__ import annotations

import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from agentd.server import Access, SocketFile
from agentd_client.errors import AlreadyServingError, SocketPathError
from tests.other_user import AGENTS, needs_root

OTHER_GROUP = AGENTS


@pytest.fixture
def path(tmp_path) -> Path:
    folder = tmp_path / "agentd-me"
    folder.mkdir()
    folder.chmod(0o755)
    return folder / "verify.sock"


def access(mode: int = 0o600, gid: int | None = None) -> Access:
    return Access("verify_socket_path", is_private=False, mode=mode, gid=gid)


def found(path: Path) -> tuple[int, int]:
    there = path.lstat()
    return stat.S_IMODE(there.st_mode), there.st_gid


@pytest.mark.parametrize("mask", [0, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_it_has_its_mode_under_any_umask_and_its_lock_is_private(path, mode, mask):
    before = os.umask(mask)
    try:
        with SocketFile(path, access(mode)) as claimed:
            claimed.bind()
            assert os.umask(mask) == mask
            assert found(path)[0] == mode
            assert stat.S_IMODE(path.with_name("verify.sock.lock").stat().st_mode) & 0o177 == 0
    finally:
        os.umask(before)
    assert not path.exists()


@needs_root
def test_it_is_given_to_its_group(path):
    with SocketFile(path, access(0o660, OTHER_GROUP)) as claimed:
        claimed.bind()
        assert found(path) == (0o660, OTHER_GROUP)


@needs_root
def test_in_a_folder_with_the_setgid_bit_it_has_the_folders_group(path):
    os.chown(path.parent, -1, OTHER_GROUP)
    path.parent.chmod(0o2750)
    with SocketFile(path, access(0o660)) as claimed:
        claimed.bind()
        assert found(path) == (0o660, OTHER_GROUP)


def test_nobody_can_connect_before_it_has_its_group_and_mode(path, monkeypatch):
    """Otherwise whoever comes in between would be let in by the rights of another file."""
    states = []
    listen = socket.socket.listen

    def watched(sock, backlog):
        states.append(found(path)[0])
        listen(sock, backlog)

    chmod = os.chmod

    def refused_until_now(where, mode):
        with socket.socket(socket.AF_UNIX) as early:
            states.append(early.connect_ex(os.fspath(path)) != 0 and found(path)[0])
        chmod(where, mode)

    monkeypatch.setattr(socket.socket, "listen", watched)
    monkeypatch.setattr(os, "chmod", refused_until_now)
    with SocketFile(path, access(0o666)) as claimed:
        claimed.bind()
    assert states == [0o600, 0o666]


def test_a_group_that_the_owner_is_not_in_is_refused_and_nothing_is_left(path, monkeypatch):
    def chown(*args, **named):
        raise PermissionError(1, os.strerror(1))

    monkeypatch.setattr(os, "chown", chown)
    with SocketFile(path, access(0o660, 5)) as claimed:
        with pytest.raises(
            SocketPathError, match=r"cannot be given to the group with the id 5: .*only a member"
        ):
            claimed.bind()
        assert not path.exists()


@pytest.mark.parametrize("bits", [0o700, 0o711, 0o750, 0o755])
def test_a_folder_that_others_may_pass_through_is_used(path, bits):
    path.parent.chmod(bits)
    with SocketFile(path, access()) as claimed:
        claimed.bind()


@pytest.mark.parametrize("bits", [0o770, 0o720, 0o757, 0o1777, 0o2770])
def test_a_folder_that_others_may_write_to_is_refused(path, bits):
    path.parent.chmod(bits)
    with (
        pytest.raises(SocketPathError, match=r"others may write to .*chmod go-w.*set verify_socket_path to"),
        SocketFile(path, access()),
    ):
        pass
    assert list(path.parent.iterdir()) == []


@needs_root
def test_a_folder_of_somebody_else_is_refused(path):
    os.chown(path.parent, 65534, -1)
    with pytest.raises(SocketPathError, match="belongs to uid 65534; set verify_socket_path"):
        SocketFile(path, access()).__enter__()


def test_a_missing_folder_is_not_made_because_nobody_said_for_whom(tmp_path):
    with pytest.raises(SocketPathError, match=r"nowhere does not exist; create it .*verify_socket_path"):
        SocketFile(tmp_path / "nowhere" / "verify.sock", access()).__enter__()
    assert not (tmp_path / "nowhere").exists()


def test_every_error_names_the_setting_and_not_the_owners_variable(path):
    refused = []
    for act in (
        lambda: SocketFile("", access()),
        lambda: SocketFile("/" + "x" * 200, access()),
        lambda: SocketFile(path / "file" / "s", access()).__enter__(),
        lambda: SocketFile("/proc/self/task/s", access()).__enter__(),
    ):
        with pytest.raises(SocketPathError) as caught:
            act()
        refused.append(str(caught.value))
    path.write_text("in the way")
    with SocketFile(path, access()) as claimed, pytest.raises(SocketPathError) as caught:
        claimed.bind()
    refused.append(str(caught.value))
    for sentence in refused:
        assert "verify_socket_path" in sentence
        assert "AGENTD_SOCKET" not in sentence


def test_a_second_agent_is_told_and_a_killed_ones_socket_is_replaced(path):
    with SocketFile(path, access()) as claimed:
        with pytest.raises(AlreadyServingError, match=r"already serves .*set verify_socket_path"):
            SocketFile(path, access()).__enter__()
        claimed.bind()
    child = os.fork()
    if child == 0:
        try:
            SocketFile(path, access(0o666)).__enter__().bind()
        finally:  # whatever happens, the child does not go on as a second pytest
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.is_socket()
    with SocketFile(path, access(0o660)) as claimed:
        claimed.bind()
        assert found(path)[0] == 0o660
