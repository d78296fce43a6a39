"""An agent that answers with what was recorded: a real Unix socket, and bytes of another version."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgpack

from agentd_client.errors import AgentdError
from agentd_client.protocol.codec import Decoder, Request
from agentd_client.protocol.methods import error_to_wire
from tests.compatibility.recordings import Recording

Change = Callable[[str, Any], Any]
"""Makes another result of a recorded one, by its method, or raises what is answered instead."""


def unchanged(method: str, result: Any) -> Any:
    return result


class Replay:
    """Answers each method with its fullest recorded result, and a subscription with every recorded event."""

    def __init__(self, path: Path, recording: Recording, change: Change = unchanged) -> None:
        answered = [exchange for exchange in recording.exchanges if exchange.error is None]
        answered.sort(key=lambda exchange: (exchange.result.get("valid") is not False, len(exchange.answer)))
        self._results = {exchange.method: exchange.result for exchange in answered}
        self._events = recording.events
        self._change = change
        self.asked: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):  # shut down
            while True:
                connection, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._converse, args=(connection,)))
                self._threads[-1].start()

    def _converse(self, connection: socket.socket) -> None:
        decoder = Decoder()
        with connection, suppress(OSError):  # the client may leave at any moment
            while data := connection.recv(65536):
                for request in decoder.receive(data):
                    assert isinstance(request, Request)
                    self.asked.append(request.method)
                    error = result = None
                    try:
                        result = self._change(request.method, self._results[request.method])
                    except AgentdError as refusal:
                        error = error_to_wire(refusal)
                    connection.sendall(msgpack.packb([1, request.msgid, error, result]))
                    if request.method == "subscribe":
                        connection.sendall(self._events)
                        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        self._listener.close()
