"""What agents of released versions answered, as `tests.compatibility.record` wrote it down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from agentd_client.protocol import methods
from agentd_client.protocol.methods import Call
from tests.calls import calls


class Exchange(NamedTuple):
    """One request and its answer, as bytes."""

    case: str
    method: str
    request: bytes
    answer: bytes

    @property
    def params(self) -> dict[str, Any]:
        return msgpack.unpackb(self.request)[3][0]

    @property
    def error(self) -> list[Any] | None:
        return msgpack.unpackb(self.answer)[2]

    @property
    def result(self) -> Any:
        return msgpack.unpackb(self.answer)[3]


class Recording:
    """Everything that one version said."""

    def __init__(self, path: Path) -> None:
        read = json.loads(path.read_text())
        self.version: str = read["version"]
        self.exchanges = [_exchange(entry) for entry in read["exchanges"]]
        self.verify_only = [_exchange(entry) for entry in read["verify_only"]]
        self.events = bytes.fromhex(read["events"])
        self.error_codes: dict[str, int] = read["error_codes"]


def _exchange(entry: dict[str, str]) -> Exchange:
    return Exchange(
        entry["case"], entry["method"], bytes.fromhex(entry["request"]), bytes.fromhex(entry["answer"])
    )


RECORDING = Recording(Path(__file__).with_name("recorded_0_1_0.json"))

_TOKEN = "v4.local.AAAA"
CALLS: dict[str, Call[Any]] = {
    call.method.name: call
    for call in (
        calls.hello(),
        calls.get_status(),
        calls.create_token(),
        calls.check_token(_TOKEN),
        calls.inspect_token(_TOKEN),
        calls.renew_token(_TOKEN),
        calls.list_sessions(),
        calls.revoke_sessions(label="x"),
        calls.revoke_token(_TOKEN),
        calls.reset_key(),
        calls.list_audit(),
        methods.SUBSCRIBE.call(),
        calls.lock(),
        calls.unlock("x"),
        calls.change_passphrase(None, "x"),
    )
}
"""One call of each method, for the way in which the client reads the answer."""
