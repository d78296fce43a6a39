"""The server: sockets, peers and requests. It knows the protocol and an interface of the agent."""

from .admission import Admission, any_user, owner_only, require_own_uid
from .dispatch import Caller, Dispatch
from .interface import Locking, ReadStatus, Sessions, Verifying
from .methods import agent_dispatch
from .parameters import Params
from .peer import Peer
from .server import serve_connections
from .socket_file import MAX_PATH_BYTES, Access, SocketFile, keep_in_place, prepare_folder
from .startup_failure import report_startup_failure
from .traffic import Traffic
from .verify_only import verify_dispatch

__all__ = [
    "MAX_PATH_BYTES",
    "Access",
    "Admission",
    "Caller",
    "Dispatch",
    "Locking",
    "Params",
    "Peer",
    "ReadStatus",
    "Sessions",
    "SocketFile",
    "Traffic",
    "Verifying",
    "agent_dispatch",
    "any_user",
    "keep_in_place",
    "owner_only",
    "prepare_folder",
    "report_startup_failure",
    "require_own_uid",
    "serve_connections",
    "verify_dispatch",
]
