"""Which process is at the other end of a connection, also once its pid is another's."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentd import process_identity
from agentd.process_identity import Process, completed, identify, identify_peer, is_alive, is_interpreter
from tests.children import child


@pytest.fixture
def running() -> Iterator[subprocess.Popen[bytes]]:
    with child() as process:
        yield process


def identity(process: subprocess.Popen[bytes]) -> Process:
    found = identify(process.pid)
    assert found is not None
    return found


def kill_unwaited(process: subprocess.Popen[bytes]) -> None:
    """It becomes a zombie: it has ended, and nobody has taken its status."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


# --- which process it is ---


def test_a_process_is_its_pid_its_start_and_its_boot(running):
    found = identity(running)
    assert found.pid == running.pid
    assert found.started >= identity_of_self().started
    assert found.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert is_alive(found)


def identity_of_self() -> Process:
    found = identify(os.getpid())
    assert found is not None
    return found


def test_another_process_with_the_same_pid_is_not_it(running):
    found = identity(running)
    assert not is_alive(found._replace(started=found.started - 1))
    assert not is_alive(found._replace(boot_id="another"))


@pytest.mark.parametrize("name", ["a) S 1 1 (b", "R S T", ") Z ) 1 2 3", "((", "))"])
def test_a_command_may_be_called_anything(name):
    code = (
        f"import ctypes, sys; ctypes.CDLL(None).prctl(15, {name.encode()!r}, 0, 0, 0);"
        "print(flush=True); sys.stdin.read()"
    )
    before = identity_of_self()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as named:
        assert named.stdout is not None
        assert named.stdout.readline()
        assert Path(f"/proc/{named.pid}/comm").read_text().rstrip("\n") == name
        # Were a field taken for another, it would hardly lie between two starts.
        with child() as later:
            assert before.started <= identity(named).started <= identity(later).started
        assert named.stdin is not None
        named.stdin.close()


def test_a_zombie_has_ended(running):
    found = identity(running)
    kill_unwaited(running)
    os.kill(running.pid, 0)  # the pid is still there
    assert identify(running.pid) is None
    assert not is_alive(found)
    running.wait()
    assert not is_alive(found)


@pytest.mark.parametrize("pid", [0, -1, 2**31 - 1])
def test_a_pid_that_nobody_has(pid):
    assert identify(pid) is None


# --- the peer of a connection ---


@pytest.fixture(params=[True, False], ids=["serials", "no serials"])
def has_serials(request, monkeypatch) -> bool:
    """Kernels that give every process a serial, and earlier ones, where its start has to tell it apart."""
    if request.param and not process_identity._has_serials():
        pytest.skip("this kernel gives processes no serials")
    monkeypatch.setattr(process_identity, "_has_serials", lambda: request.param)
    return request.param


CONNECTING = """
import socket, sys
for path in sys.argv[1:]:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.set_inheritable(True)
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        yield listener


@contextmanager
def connecting(listener: socket.socket, times: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has connected, and lives until it is killed or its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", CONNECTING, *[listener.getsockname()] * times],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def accepted(listener: socket.socket, process: subprocess.Popen[bytes]) -> Process:
    connection, _ = listener.accept()
    with connection:
        return identify_peer(connection, process.pid)


class Refusing:
    """A connection whose kernel refuses SO_PEERPIDFD in its own way."""

    def __init__(self, number: int) -> None:
        self._number = number

    def getsockopt(self, *args: int) -> int:
        raise OSError(self._number, os.strerror(self._number))


def test_all_connections_of_a_process_have_its_identity_and_no_other_process_has_it(listener, has_serials):
    with connecting(listener, times=2) as one:
        first, second = [accepted(listener, one) for _ in range(2)]
        with connecting(listener) as two:
            other = accepted(listener, two)
        assert completed(first)._replace(serial=None) == identity(one)
    assert first == second != other
    assert first.pid == one.pid


def test_nothing_is_read_of_a_process_that_its_serial_tells_apart(listener, has_serials, monkeypatch):
    if not has_serials:
        pytest.skip("it takes a serial")
    monkeypatch.setattr(process_identity, "read_file", None)
    with connecting(listener) as process:
        found = accepted(listener, process)
        assert is_alive(found)
    assert not is_alive(found)


def test_a_process_is_completed_as_long_as_it_runs_and_has_its_pid(listener, has_serials, monkeypatch):
    with connecting(listener) as process:
        found = accepted(listener, process)
        assert is_alive(completed(found))
        assert completed(completed(found)) == completed(found)
        if has_serials:
            assert completed(found._replace(serial=found.serial + 1)) is None, "its pid is another's"
        kill_unwaited(process)
        # Its pid has been reused by another process.
        monkeypatch.setattr(process_identity, "identify", lambda pid: Process(pid, 4711, "a boot"))
        assert completed(found._replace(started=None)) is None


def test_a_peer_that_lives_can_be_recognised_and_one_that_has_ended_cannot(listener, has_serials):
    with connecting(listener) as process:
        found = accepted(listener, process)
        assert is_alive(found)
        kill_unwaited(process)
        assert not is_alive(found)


@pytest.mark.parametrize("is_zombie", [True, False])
def test_a_peer_that_ended_before_it_was_accepted_is_not_who_has_its_pid_by_then(
    listener, monkeypatch, has_serials, is_zombie
):
    with connecting(listener) as process:
        kill_unwaited(process)
        if not is_zombie:
            process.wait()
        # Its pid has been reused by another process.
        monkeypatch.setattr(process_identity, "identify", lambda pid: Process(pid, 4711, "a boot"))
        found = accepted(listener, process)
    assert (found.pid, found.started) == (process.pid, None)
    assert not is_alive(found)


def test_without_the_kernels_word_the_peer_is_who_has_the_pid(running):
    assert identify_peer(Refusing(errno.ENOPROTOOPT), running.pid) == identity(running)
    kill_unwaited(running)
    assert identify_peer(Refusing(errno.ENOPROTOOPT), running.pid) == Process(running.pid, None, "")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ESRCH, errno.EMFILE, errno.EPERM])
def test_a_kernel_that_could_say_it_and_does_not_leaves_the_peer_unknown(running, number):
    found = identify_peer(Refusing(number), running.pid)
    assert found == Process(running.pid, None, "")
    assert not is_alive(found)


def test_where_proc_shows_nothing_two_processes_still_differ_and_none_is_alive(
    listener, monkeypatch, has_serials, tmp_path
):
    monkeypatch.setattr(process_identity, "PROC", str(tmp_path))
    with connecting(listener, times=2) as one, connecting(listener) as two:
        first, second, other = accepted(listener, one), accepted(listener, one), accepted(listener, two)
    assert first == second
    if first.serial is not None:
        assert first.serial != other.serial
    assert first.started is completed(first) is None
    assert not is_alive(first)


def test_it_keeps_no_descriptor(listener, has_serials, open_descriptors):
    with connecting(listener, times=2) as process:
        accepted(listener, process)
        before = open_descriptors()
        accepted(listener, process)
        assert open_descriptors() == before


# --- which programs run other programs ---


@pytest.mark.parametrize(
    "name",
    [
        "python3",
        "python3.11-dbg",
        "python3.11 (deleted)",
        "bash (deleted)",
        "perl5.36.0",
        "pypy3.9-c",
        "java",
        "beam.smp",
        "ld-linux-x86-64.so.2",
        "qemu-aarch64-static",
    ],
)
def test_an_interpreter_is_recognised_by_its_name(name):
    assert is_interpreter(name.encode())


@pytest.mark.parametrize(
    "name", ["git", "cat (deleted)", "lua-language-server", "sha256sum", "javac", "7z", ""]
)
def test_other_programs_are_not(name):
    assert not is_interpreter(name.encode())
