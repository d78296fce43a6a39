from __future__ import annotations

import socket
from contextlib import suppress

import msgpack
import pytest
import trio

from agentd.server import report_startup_failure
from agentd.server.server import STARTUP_FAILURE_SECONDS
from tests.server.talk import LOGGER, create, request, verify

SENTENCE = "the store is cut short; restore it"


def waiting(path: str, *requests: bytes) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(10)
    client.connect(path)
    client.sendall(b"".join(requests))
    return client


def received(client: socket.socket) -> list[object]:
    with client:
        data = b""
        while more := client.recv(4096):
            data += more
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    return list(unpacker)


async def test_every_request_of_everyone_who_waits_is_refused_with_the_reason(listener, path):
    asking = [verify(1), create(2, "a label"), request(3, "hello"), request(4, "noSuchMethod")]
    clients = [waiting(path, *asking) for _ in range(3)]
    await report_startup_failure(listener, [], SENTENCE, logger=LOGGER)
    for client in clients:
        assert received(client) == [
            [1, msgid, [0, f"START: the agent could not start: {SENTENCE}"], None] for msgid in (1, 2, 3, 4)
        ]


async def test_the_listener_stays_as_it_was(listener, path):
    await report_startup_failure(listener, [], SENTENCE, logger=LOGGER)
    with waiting(path, verify(1)):
        await report_startup_failure(listener, [], SENTENCE, logger=LOGGER)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_who_waits_without_a_request_is_closed_and_can_send_none_any_more(listener, path):
    with waiting(path) as silent:
        await report_startup_failure(listener, [], SENTENCE, logger=LOGGER)
        assert silent.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            silent.send(verify(1))


async def test_more_than_the_agent_would_serve_at_once_do_not_stay_in_the_queue(listener, path):
    clients = [waiting(path, verify(1)) for _ in range(300)]
    await report_startup_failure(listener, [], SENTENCE, logger=LOGGER)
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()
    for client in clients:
        client.close()


async def test_people_who_come_and_come_do_not_keep_it_for_ever(listener, path, mock_clock):
    clients = [waiting(path, verify(1)) for _ in range(10)]

    async def come_and_come() -> None:
        while True:
            for _ in range(2):  # while one is taken
                with suppress(BlockingIOError):
                    clients.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
                    clients[-1].connect(path)
            mock_clock.jump(STARTUP_FAILURE_SECONDS / 20)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come_and_come)
        await report_startup_failure(listener, [], SENTENCE, logger=LOGGER)
        assert trio.current_time() <= 2 * STARTUP_FAILURE_SECONDS
        nursery.cancel_scope.cancel()
    for client in clients:
        client.close()
