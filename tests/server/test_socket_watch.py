"""A socket that is removed under a running agent is there again."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
from pathlib import Path

import pytest
import trio

from agentd.methods import verify_dispatch
from agentd.server import SocketFile, keep_in_place
from agentd.server.log import Traffic
from agentd.server.server import serve_connections
from agentd_client.errors import AlreadyServingError, SocketPathError
from agentd_client.file_locks import holder_of

LOGGER = logging.getLogger("agentd.test")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "agentd" / "agent.sock"


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent.parent)


def remove_socket(path: Path) -> None:
    path.unlink()


def replace_socket(path: Path) -> None:
    path.unlink()
    path.touch()
    path.unlink()


def remove_lock(path: Path) -> None:
    path.with_name("agent.sock.lock").unlink()


@pytest.mark.parametrize("remove", [remove_folder, remove_socket, replace_socket, remove_lock])
async def test_whatever_is_gone_is_made_again_and_served(path, remove, autojump_clock, caplog):
    with SocketFile(path) as claimed:
        listener = claimed.bind()
        dispatch = verify_dispatch(None, version="0", logger=LOGGER, traffic=Traffic())
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_in_place, claimed, LOGGER)
            await nursery.start(
                lambda **given: serve_connections(listener, dispatch, logger=LOGGER, stop=stop, **given)
            )
            for _ in range(2):
                await trio.sleep(5)
                assert claimed.is_in_place()
                remove(path)
                assert not claimed.is_in_place()
                await trio.sleep(5)
                assert claimed.is_in_place()
                assert "was removed while it was served; it was re-created" in caplog.text
                stream = await trio.open_unix_socket(path)
                await stream.send_all(bytes.fromhex("94 00 07 a5") + b"hello" + bytes.fromhex("90"))
                assert (await stream.receive_some())[:3] == bytes.fromhex("94 01 07")
                await stream.aclose()
                with pytest.raises(AlreadyServingError), SocketFile(path):
                    pass
                assert holder_of(f"{path}.lock").pid == os.getpid()
            stop.set()
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    assert not path.exists()


async def test_where_another_agent_took_the_place_it_is_left_alone_and_said_once(
    path, autojump_clock, caplog
):
    with SocketFile(path) as claimed:
        claimed.bind()
        remove_folder(path)
        with SocketFile(path) as other:
            other.bind()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_in_place, claimed, LOGGER)
                await trio.sleep(30)
                assert other.is_in_place()
                assert [record.levelname for record in caplog.records] == ["ERROR"]
                assert f"another agent already serves {path}" in caplog.text
                nursery.cancel_scope.cancel()
        with trio.move_on_after(5):
            await keep_in_place(claimed, LOGGER)
        assert claimed.is_in_place(), "once the other is gone"


async def test_a_socket_of_a_service_manager_is_left_to_it_unless_it_was_removed(path, autojump_clock):
    path.parent.mkdir(parents=True, mode=0o700)
    path.parent.parent.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(os.fspath(path))
        passed.listen()
        with SocketFile(path) as claimed:
            claimed.adopt(passed)
            assert claimed.is_in_place()
        assert path.is_socket(), "its maker removes it"
        with SocketFile(path) as claimed:
            claimed.adopt(passed)
            path.unlink()
            with trio.move_on_after(5):
                await keep_in_place(claimed, LOGGER)
            assert claimed.is_in_place()
            (await trio.open_unix_socket(path)).socket.close()
            passed.setblocking(False)
            passed.accept()[0].close()
        assert not path.exists()


async def test_a_renewal_leaves_no_descriptor_open(path, open_descriptors):
    with SocketFile(path) as claimed:
        listener = claimed.bind()
        before = open_descriptors()
        remove_folder(path)
        claimed.renew(trio.lowlevel.notify_closing)
        assert len(open_descriptors()) == len(before)
        assert not os.get_inheritable(listener.fileno())


async def test_a_renewal_that_fails_at_the_last_step_is_tried_again(path, monkeypatch):
    def refuse(*args, **named):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with SocketFile(path) as claimed:
        claimed.bind()
        remove_socket(path)
        with monkeypatch.context() as patched, pytest.raises(SocketPathError, match="Too many open files"):
            patched.setattr(os, "dup2", refuse)
            claimed.renew(trio.lowlevel.notify_closing)
        assert not claimed.is_in_place()
        claimed.renew(trio.lowlevel.notify_closing)
        assert claimed.is_in_place()
        (await trio.open_unix_socket(path)).socket.close()
    assert not path.exists()
