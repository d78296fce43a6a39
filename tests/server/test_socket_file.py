from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agentd.server import SocketFile, socket_file
from agentd_client.errors import AlreadyServingError, SocketPathError


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "agentd" / "agent.sock"


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def can_connect(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(os.fspath(path)) == 0


def test_the_socket_is_listening_while_the_context_lasts_and_gone_after_it(path):
    with SocketFile(path) as socket_file:
        assert not path.exists()
        listener = socket_file.bind()
        assert can_connect(path)
        assert listener.getblocking() is False
    assert not path.exists()
    assert listener.fileno() == -1


@pytest.mark.parametrize("mask", [0, 0o022, 0o077, 0o777])
def test_folder_and_socket_are_private_under_any_umask(tmp_path, umask, mask):
    path = tmp_path / "a" / "b" / "agentd" / "agent.sock"
    umask(mask)
    with SocketFile(path) as socket_file:
        socket_file.bind()
        assert os.umask(mask) == mask
        umask(0o022)
        assert [mode(folder) for folder in path.parents[:3]] == [0o700] * 3
        assert mode(path) == 0o600
        assert mode(path.with_name("agent.sock.lock")) & 0o177 == 0


def test_a_folder_that_is_private_is_used_as_it_is(path):
    path.parent.mkdir(0o700)
    with SocketFile(path) as socket_file:
        socket_file.bind()


@pytest.mark.parametrize("bits", [0o710, 0o701, 0o720, 0o702, 0o755, 0o777])
def test_a_folder_that_others_may_enter_is_refused_with_the_remedy(path, bits):
    path.parent.mkdir()
    path.parent.chmod(bits)
    with pytest.raises(SocketPathError, match=f"chmod 700 {path.parent}"), SocketFile(path):
        pass
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(("name", "bits"), [("home", 0o755), ("tmp", 0o1777), ("agentd", 0o1777)])
def test_nobody_is_told_to_close_a_folder_that_has_other_uses(tmp_path, name, bits):
    folder = tmp_path / name
    folder.mkdir()
    folder.chmod(bits)
    with pytest.raises(
        SocketPathError, match="set AGENTD_SOCKET or --socket to a path in a folder of its own"
    ) as caught:
        SocketFile(folder / "agent.sock").__enter__()
    assert "chmod" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(path):
    path.parent.mkdir(0o700)
    os.chown(path.parent, 65534, 65534)
    with pytest.raises(SocketPathError, match="belongs to uid 65534"), SocketFile(path):
        pass


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_what_is_no_folder_is_refused(tmp_path, path, kind):
    if kind == "file":
        path.parent.write_text("")
    else:
        (tmp_path / "elsewhere").mkdir(0o700)
        path.parent.symlink_to("elsewhere" if kind == "link" else "nowhere")
    with pytest.raises(SocketPathError, match="is not a folder"), SocketFile(path):
        pass


def test_a_folder_that_cannot_be_made_is_refused_with_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SocketPathError, match="Not a directory"),
        SocketFile(tmp_path / "file" / "a" / "sock"),
    ):
        pass


def test_a_folder_that_another_agent_makes_at_the_same_time_is_used(path, monkeypatch):
    mkdir = os.mkdir

    def mkdir_after_another(made, mode):
        mkdir(made, mode)
        mkdir(made, mode)

    monkeypatch.setattr(os, "mkdir", mkdir_after_another)
    with SocketFile(path):
        assert mode(path.parent) == 0o700


@pytest.mark.parametrize("given", ["", "a\0b", "\0abstract"])
def test_what_is_no_path_is_refused(given):
    with pytest.raises(SocketPathError, match="not a path"):
        SocketFile(given)


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_path_that_is_too_long_is_refused_with_its_length_in_bytes(tmp_path, letter):
    room = socket_file.MAX_PATH_BYTES - len(os.fsencode(tmp_path)) - 1
    fits = letter * (room // len(letter.encode())) + "x" * (room % len(letter.encode()))
    with SocketFile(tmp_path / fits) as claimed:
        tmp_path.chmod(0o700)
        claimed.bind()
    with pytest.raises(SocketPathError, match=f"{fits}x has 108 bytes.* at most 107.*AGENTD_SOCKET"):
        SocketFile(tmp_path / f"{fits}x")


def test_a_relative_path_means_the_same_after_the_folder_was_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    claimed = SocketFile("run/sock")
    monkeypatch.chdir("/")
    with claimed:
        claimed.bind()
        assert (tmp_path / "run" / "sock").exists()


# --- the lock ---------------------------------------------------------------------------------------


def test_a_second_agent_is_refused_from_the_lock_on(path):
    with SocketFile(path) as first:
        for _ in range(2):
            with pytest.raises(AlreadyServingError, match="another agent already serves"), SocketFile(path):
                pass
        first.bind()
        with pytest.raises(AlreadyServingError, match=str(path)), SocketFile(path):
            pass
        assert can_connect(path)
    with SocketFile(path):
        pass


def test_an_agent_in_another_process_is_refused_as_well(path):
    program = """
import sys
from agentd.server import SocketFile
from agentd_client.errors import AlreadyServingError
try:
    with SocketFile(sys.argv[1]):
        print("locked")
except AlreadyServingError:
    print("refused")
"""

    def other() -> str:
        return subprocess.run(
            [sys.executable, "-c", program, path], capture_output=True, text=True, check=True
        ).stdout.strip()

    with SocketFile(path):
        assert other() == "refused"
    assert other() == "locked"


def test_the_lock_is_not_inherited_by_programs_that_the_agent_runs(path):
    with SocketFile(path) as claimed:
        assert not os.get_inheritable(claimed._lock)


def test_a_lock_file_that_was_replaced_meanwhile_is_locked_anew(path, monkeypatch):
    flock = fcntl.flock
    name = path.with_name("agent.sock.lock")
    replaced = []

    def flock_after_another(descriptor, how):
        if len(replaced) < 3:
            replaced.append(name.stat().st_ino)
            name.unlink()
            if len(replaced) != 2:
                name.touch()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock_after_another)
    with SocketFile(path) as claimed:
        monkeypatch.undo()
        assert os.path.samestat(os.fstat(claimed._lock), name.stat())
        with pytest.raises(AlreadyServingError), SocketFile(path):
            pass


def test_a_lock_file_that_is_replaced_again_and_again_is_given_up(path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: path.with_name("agent.sock.lock").unlink())
    with pytest.raises(SocketPathError, match="again and again"), SocketFile(path):
        pass


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_a_lock_that_is_no_regular_file_is_refused(tmp_path, path, kind):
    path.parent.mkdir(0o700)
    name = path.with_name("agent.sock.lock")
    if kind == "fifo":
        os.mkfifo(name)
    elif kind == "folder":
        name.mkdir()
    else:
        name.symlink_to(tmp_path / "target")
    with pytest.raises(SocketPathError, match="agent.sock"), SocketFile(path):
        pass
    assert not (tmp_path / "target").exists()


def test_a_lock_that_cannot_be_taken_is_refused_with_the_reason(path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(SocketPathError, match="No locks available"), SocketFile(path):
        pass


# --- what is in the way -----------------------------------------------------------------------------


def test_a_socket_that_a_killed_agent_left_is_replaced(path):
    path.parent.mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(os.fspath(path))
        killed.listen()
    assert path.exists()
    assert not can_connect(path)
    with SocketFile(path) as claimed:
        claimed.bind()
        assert can_connect(path)


def test_a_socket_that_someone_listens_at_is_left_alone(path):
    path.parent.mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.fspath(path))
        other.listen(0)
        for _ in range(3):  # the last times its queue is full
            with (
                SocketFile(path) as claimed,
                pytest.raises(AlreadyServingError, match=r"listens at .*systemctl"),
            ):
                claimed.bind()
        assert path.exists()


def test_a_socket_of_another_type_is_left_alone(path):
    path.parent.mkdir(0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(os.fspath(path))
        with SocketFile(path) as claimed, pytest.raises(SocketPathError, match="wrong type"):
            claimed.bind()
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "fifo", "link", "link to a socket"])
def test_what_is_no_socket_is_never_removed(tmp_path, path, kind):
    path.parent.mkdir(0o700)
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "target")
        if kind == "link to a socket":
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(os.fspath(tmp_path / "target"))
    before = path.lstat()
    with SocketFile(path) as claimed, pytest.raises(SocketPathError, match="in the way and not a socket"):
        claimed.bind()
    assert os.path.samestat(path.lstat(), before)


def test_a_socket_that_was_made_with_another_mode_is_refused_and_removed(path, monkeypatch):
    umask = os.umask
    monkeypatch.setattr(os, "umask", lambda mask: umask(0o022))
    with SocketFile(path) as claimed:
        with pytest.raises(SocketPathError, match="mode 0755, not 0600"):
            claimed.bind()
        assert not path.exists()
    monkeypatch.undo()
    os.umask(0o022)


def test_a_file_system_that_refuses_is_told_and_nothing_is_left_open(path):
    with SocketFile(path) as claimed:
        path.parent.rename(path.parent.with_name("moved"))
        with pytest.raises(SocketPathError, match=f"{path}: No such file"):
            claimed.bind()


# --- the end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["socket", "file"])
def test_what_someone_else_put_in_its_place_is_not_removed(path, kind):
    with socket.socket(socket.AF_UNIX) as other:
        with SocketFile(path) as claimed:
            claimed.bind()
            path.unlink()
            if kind == "socket":
                other.bind(os.fspath(path))
            else:
                path.write_text("")
        assert path.exists()


def test_a_socket_that_is_gone_already_is_nothing(path):
    with SocketFile(path) as claimed:
        listener = claimed.bind()
        path.unlink()
    assert listener.fileno() == -1


def test_a_claim_that_never_bound_removes_nothing(path):
    path.parent.mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.fspath(path))
        with SocketFile(path):
            pass
        assert path.exists()


def test_an_exception_inside_ends_the_claim_as_well(path):
    with pytest.raises(KeyError), SocketFile(path) as claimed:
        claimed.bind()
        raise KeyError
    assert not path.exists()
    with SocketFile(path):
        pass
