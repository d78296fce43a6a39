"""The server: sockets, peers and requests. It knows the protocol and an interface of the agent."""

from .caller import Caller
from .dispatch import Dispatch, Params
from .interface import ReadStatus, Sessions
from .methods import agent_dispatch
from .peer import Peer
from .refusing import refuse_waiting
from .server import serve_connections
from .socket_file import MAX_PATH_BYTES, SocketFile
from .traffic import Traffic

__all__ = [
    "MAX_PATH_BYTES",
    "Caller",
    "Dispatch",
    "Params",
    "Peer",
    "ReadStatus",
    "Sessions",
    "SocketFile",
    "Traffic",
    "agent_dispatch",
    "refuse_waiting",
    "serve_connections",
]
