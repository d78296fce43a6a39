from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from agentd_client.transport.connection import Connection
from tests.client.flavours import FLAVOURS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's agent listens; pytest's own folders can be too long for a socket."""
    return tmp_path / "s"


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def small_send_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's sockets take a few kilobytes at a time, as little as the kernel allows."""
    opened = Connection.open

    def open_small(path: str, **options: Any) -> Connection:
        connection = opened(path, **options)
        connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        return connection

    monkeypatch.setattr(Connection, "open", open_small)
