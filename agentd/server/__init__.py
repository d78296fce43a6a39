"""The server: sockets, peers, connections and the table of methods. It knows the protocol and no method."""

from .admission import MOST_CONNECTIONS, Admission, askers, owner_only, require_own_uid, verifiers
from .dispatch import (
    Dispatch,
    FairQueue,
    Params,
    ParamsWithSecrets,
    PassphraseBytes,
    TokenText,
    presented_token,
)
from .log import Traffic
from .peer import Caller, Peer, describe_peer
from .server import report_startup_failure, serve_connections
from .socket_file import MAX_PATH_BYTES, Access, SocketFile, keep_in_place, prepare_folder

__all__ = [
    "MAX_PATH_BYTES",
    "MOST_CONNECTIONS",
    "Access",
    "Admission",
    "Caller",
    "Dispatch",
    "FairQueue",
    "Params",
    "ParamsWithSecrets",
    "PassphraseBytes",
    "Peer",
    "SocketFile",
    "TokenText",
    "Traffic",
    "askers",
    "describe_peer",
    "keep_in_place",
    "owner_only",
    "prepare_folder",
    "presented_token",
    "report_startup_failure",
    "require_own_uid",
    "serve_connections",
    "verifiers",
]
