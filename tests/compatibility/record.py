"""Record what an agent of this version answers, byte by byte, for later clients to be tried against.

    python -m tests.compatibility.record VERSION FOLDER > tests/compatibility/recorded_VERSION.json

Run it in a checkout of the version that is recorded. FOLDER is an empty folder with a short path, in which a
real agent makes its keys, its store and its sockets; none of them is of any use afterwards. The requests are
those that this version's own client makes.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentd_client import errors
from agentd_client.protocol import methods
from agentd_client.protocol.codec import Decoder, Encoder, Response
from agentd_client.protocol.exchange import Exchange
from agentd_client.protocol.methods import Call
from tests.calls import calls
from tests.e2e.daemon import Home, serving

PASSPHRASE = "correct horse battery staple"
UNLOCKING_SECONDS = 60


class Recorder:
    """One connection, on which each call is sent as the client sends it and the answer kept as it came."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(UNLOCKING_SECONDS)
        self._socket.connect(str(path))
        self._exchange = Exchange()
        self.recorded: list[dict[str, str]] = []

    def ask(self, case: str, call: Call[Any]) -> Any:
        """The answer as the client reads it; the error, where it is a refusal."""
        return self._ask(case, call.method.name, self._exchange.request(call), call)

    def ask_raw(self, case: str, method: str, params: dict[str, Any]) -> None:
        """A request that the client itself refuses to make."""
        self._ask(case, method, Encoder().request(1, method, params), None)

    def _ask(self, case: str, method: str, request: bytes, call: Call[Any] | None) -> Any:
        self._socket.sendall(request)
        answer = self._one_message()
        self.recorded.append(
            {"case": case, "method": method, "request": request.hex(), "answer": answer.hex()}
        )
        if call is None:
            return None
        found = self._exchange.receive(answer, call)
        assert found is not None
        return found.refusal or found.result

    def _one_message(self) -> bytes:
        decoder, received = Decoder(), b""
        while True:
            data = self._socket.recv(65536)
            assert data, "the agent closed the connection"
            received += data
            messages = decoder.receive(data)
            if messages:
                (message,) = messages
                assert isinstance(message, Response)
                assert not decoder.has_partial_message
                return received

    def events(self) -> bytes:
        """What came on this connection until the agent closed it."""
        received = b""
        while data := self._socket.recv(65536):
            received += data
        return received


def record_sessions(agent: Recorder) -> None:
    agent.ask("hello", calls.hello())
    agent.ask("status of an agent without sessions", calls.get_status())
    agent.ask("no sessions", calls.list_sessions())
    plain = agent.ask("a session", calls.create_token(3600, "desk"))
    agent.ask("the token that the commands take for theirs", calls.check_token(plain.token))
    full = agent.ask(
        "a session with everything",
        calls.create_token(
            1800,
            "editor",
            audience=["web"],
            scopes=["read", "deploy"],
            max_uses=5,
            max_lifetime=7200,
            parent=plain.token,
        ),
    )
    agent.ask("a session without an end", calls.create_token(methods.NEVER, None, max_lifetime=methods.NEVER))
    bound = agent.ask("a bound session", calls.create_token(60, "job", bound=True))
    agent.ask("valid and counted", calls.check_token(full.token, audience="web", scopes=["read"]))
    agent.ask("valid as a judgement", calls.judge_token(plain.token))
    agent.ask("no token", calls.check_token("v4.local.AAAA"))
    agent.ask("another audience", calls.check_token(full.token))
    agent.ask("a scope too many", calls.check_token(full.token, audience="web", scopes=["admin"]))
    agent.ask("inspected", calls.inspect_token(plain.token))
    agent.ask("inspected by its id", calls.inspect_token(id=full.id))
    renewed = agent.ask("renewed", calls.renew_token(plain.token))
    agent.ask("a page of sessions", calls.list_sessions(limit=2))
    agent.ask("chosen sessions", calls.list_sessions(state="active", label="e*", pid=os.getpid()))
    agent.ask("ended", calls.revoke_token(id=bound.id))
    agent.ask("ended already", calls.revoke_token(id=bound.id))
    agent.ask("its token", calls.check_token(bound.token))
    agent.ask("not renewed", calls.renew_token(bound.token))
    agent.ask("below nothing", calls.create_token(60, None, parent=bound.token))
    agent.ask("more than the parent", calls.create_token(60, None, parent=full.token, scopes=["admin"]))
    agent.ask("ended by condition", calls.revoke_sessions(label="editor"))
    agent.ask("the audit log", calls.list_audit())
    agent.ask("a page of the audit log", calls.list_audit(since=1.5, limit=2))
    agent.ask("status", calls.get_status())
    agent.ask("the key replaced with grace", calls.reset_key(60))
    agent.ask("valid while the grace lasts", calls.check_token(renewed.token))
    agent.ask("the key replaced", calls.reset_key())
    agent.ask("a token of the earlier key", calls.check_token(renewed.token))


def record_refusals(agent: Recorder) -> None:
    agent.ask_raw("no such method", "frob", {})
    agent.ask_raw("no such parameter", "createToken", {"colour": "red"})
    agent.ask_raw("a parameter of another type", "renewToken", {"token": 7})
    agent.ask_raw("no expiry", "createToken", {"expiry": -1})
    agent.ask_raw("no label", "createToken", {"label": "two\nlines"})
    agent.ask_raw("no scopes", "createToken", {"scopes": ["a b"]})
    agent.ask_raw("no audience", "createToken", {"audience": "web"})
    agent.ask_raw("no uses", "createToken", {"maxUses": 0})
    agent.ask_raw("no grace", "resetKey", {"graceSeconds": -1})
    agent.ask("no passphrase to lock with", calls.lock())


def record_locking(agent: Recorder) -> None:
    agent.ask("a first passphrase", calls.change_passphrase(None, PASSPHRASE))
    agent.ask("locked", calls.lock())
    agent.ask("status while locked", calls.get_status())
    agent.ask("nobody can know", calls.check_token("v4.local.AAAA"))
    agent.ask("a wrong passphrase", calls.unlock("another"))
    agent.ask("unlocked", calls.unlock(PASSPHRASE))
    agent.ask("status of an agent with a passphrase", calls.get_status())
    agent.ask("no passphrase any more", calls.change_passphrase(PASSPHRASE, None))


def record_verify_only(agent: Recorder, token: str) -> None:
    agent.ask("hello of the verify socket", calls.hello())
    agent.ask("valid at the verify socket", calls.judge_token(token))
    agent.ask("no token at the verify socket", calls.judge_token("v4.local.AAAA"))
    agent.ask("nothing else at the verify socket", calls.get_status())


def main(version: str, folder: str) -> None:
    """Print the recording."""
    home = Home(Path(folder))
    second = Path(folder) / "verify.sock"
    settings = Path(folder) / "config" / "agentd" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'verify_socket_path = "{second}"\n')
    with _umask(0o077), serving(home) as daemon:
        subscriber = Recorder(home.socket)
        subscriber.ask("subscribed", methods.SUBSCRIBE.call())
        agent = Recorder(home.socket)
        record_sessions(agent)
        record_refusals(agent)
        record_locking(agent)
        verifier = Recorder(second)
        token = agent.ask("a session for the verify socket", calls.create_token(3600, None)).token
        record_verify_only(verifier, token)
        daemon.stop()
        events = subscriber.events()
    print(
        json.dumps(
            {
                "version": version,
                "exchanges": subscriber.recorded + agent.recorded,
                "events": events.hex(),
                "verify_only": verifier.recorded,
                "error_codes": {code: kind.number for code, kind in sorted(errors.ERRORS.items())},
            },
            indent=1,
        )
    )


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
