"""The server: sockets, peers and requests. It knows the protocol and an interface of the agent."""

from .dispatch import Dispatch, Params
from .interface import ReadStatus, Sessions
from .methods import agent_dispatch
from .peer import Peer
from .server import serve_connections
from .socket_file import SocketFile

__all__ = [
    "Dispatch",
    "Params",
    "Peer",
    "ReadStatus",
    "Sessions",
    "SocketFile",
    "agent_dispatch",
    "serve_connections",
]
