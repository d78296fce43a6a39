"""Who holds a lock: the kernel's word, and the holder's own only as far as it agrees."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentd_client.blocking import Client
from agentd_client.errors import AgentUnreachableError
from agentd_client.file_locks import Holder, agent_elsewhere, holder_of, sign


@contextmanager
def locked(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def test_the_holder_is_who_signed_and_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder_of(path) is None, "there is no such file"
    with locked(path) as descriptor:
        assert holder_of(path) is None, "it did not sign"
        sign(descriptor, "/long/path/of/the/socket")
        sign(descriptor, "/run/me/agent.sock")
        assert holder_of(path) == Holder(os.getpid(), "/run/me/agent.sock")
        assert str(holder_of(path)) == f"process {os.getpid()}, which serves /run/me/agent.sock"
        sign(descriptor, "")
        assert str(holder_of(path)) == f"process {os.getpid()}"
    assert path.read_text() == f"{os.getpid()}\n\n"
    assert holder_of(path) is None, "what it wrote is stale"


def test_what_another_left_in_the_file_is_not_believed_of_the_present_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path):
        path.write_text("1\n/somewhere\n")
        assert holder_of(path) is None
        for nonsense in ("", "x\n/s\n", "-1\n/s\n", "\0" * 600, f"{os.getpid()}"):
            path.write_text(nonsense)
            assert holder_of(path) is None
        path.write_text(f"{os.getpid()}\n\x1b[2J\n")
        assert holder_of(path) == Holder(os.getpid(), ""), "no control characters reach a terminal"


def test_no_link_or_fifo_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    assert holder_of(tmp_path / "fifo") is None
    assert holder_of(tmp_path / "link") is None


def test_the_child_of_a_holder_is_none(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as descriptor:
        sign(descriptor, "/s")
        program = f"from agentd_client.file_locks import holder_of; print(holder_of({str(path)!r}).pid)"
        told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert int(told.stdout) == os.getpid()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def test_where_nobody_answers_the_agent_that_there_is_is_named(places: Path) -> None:
    path = str(places / "agent.sock")
    store = places / "state" / "agentd" / "store" / "agentd.lock"
    pid = os.getpid()

    def said() -> str:
        with pytest.raises(AgentUnreachableError) as caught:
            Client.connect(path, patience=0)
        return caught.value.sentence

    assert agent_elsewhere(path) is None
    assert said().endswith("start one with `agentd serve`")
    with locked(store) as held:
        sign(held, "/other.sock")
        assert f"; your agent is process {pid}, which serves /other.sock: set AGENTD_SOCKET" in said()
        sign(held, path)
        assert f"; process {pid} is the agent of that socket, which was removed under it" in said()
        with locked(Path(f"{path}.lock")) as claimed:
            sign(claimed, path)
            assert f"; process {pid} is the agent of that socket, and about to make it" in said()
    assert said().endswith("start one with `agentd serve`")
