"""`agentctl` and the clients beside an agent of another version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import agentd_client
from agentd_client import (
    Client,
    InvalidMessageError,
    InvalidParamsError,
    OutcomeUnknownError,
    ProtocolError,
    UnknownMethodError,
    VersionsDifferError,
)
from agentd_client.cli import run as run_module
from agentd_client.cli.commands import status as status_command
from agentd_client.protocol.results import Hello
from agentd_client.transport import repeating as repeating_module
from agentd_client.versions import difference
from tests.agentctl.conftest import folder  # noqa: F401 - a fixture that applies to every test here
from tests.agentctl.running import in_process
from tests.calls import calls
from tests.compatibility.recordings import RECORDING
from tests.compatibility.replay import Replay, unchanged

COMMANDS = {
    "status": "",
    "status --json": "",
    "login": "",
    "verify": "",
    "verify --json": "",
    "inspect": "",
    "renew": None,
    "list": "",
    "list --json": "",
    "revoke --label e* --yes": "",
    "logout": "",
    "reset-key --yes": "",
    "audit": "",
    "audit --json": "",
    "watch": "agentctl: the agent has stopped\n",
    "lock": "",
}
"""What each says on standard error; None for what depends on the time."""

RESTART = "restart the agent"


def newer(value: Any) -> Any:
    """The same answer with fields and items that nobody knows yet."""
    if isinstance(value, dict):
        return {name: newer(each) for name, each in value.items()} | {"addedLater": {"deep": [1]}}
    return (
        [newer(each) for each in value]
        if isinstance(value, list) and value and isinstance(value[0], dict)
        else value
    )


@pytest.fixture
def socket_path(folder) -> Path:  # noqa: F811
    return folder / "agent.sock"


@pytest.fixture
def own_version(monkeypatch):
    def own_version(version: str) -> None:
        for module in (repeating_module, status_command, run_module):
            monkeypatch.setattr(module, "__version__", version)

    return own_version


def logged_in(socket_path: Path) -> None:
    token = next(exchange for exchange in RECORDING.exchanges if exchange.method == "createToken").result[
        "token"
    ]
    path = socket_path.with_name("session-token")
    path.write_text(token + "\n")
    path.chmod(0o600)


@pytest.mark.parametrize("answers", ["as they were", "with more fields"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_works_with_what_an_agent_of_another_version_answers(socket_path, command, answers):
    logged_in(socket_path)
    change = unchanged if answers == "as they were" else lambda method, result: newer(result)
    with Replay(socket_path, RECORDING, change) as agent:
        ended = in_process(*command.split())
    assert agent.asked, ended
    assert ended.code == 0, ended
    assert COMMANDS[command] in (ended.err, None)


@pytest.mark.parametrize(
    ("own", "advice"),
    [
        ("0.2.0", RESTART),
        ("0.10.0", RESTART),
        ("1.0", RESTART),
        ("0.0.9", "update this client"),
        ("0.1.0", None),
    ],
)
def test_status_says_which_of_the_two_is_older(socket_path, own_version, own, advice):
    own_version(own)
    with Replay(socket_path, RECORDING):
        ended = in_process("status")
        as_json = in_process("status", "--json")
    assert (ended.code, as_json.code) == (0, 0)
    assert json.loads(as_json.out)["agent"]["version"] == "0.1.0"
    if advice is None:
        assert ended.err == ""
    else:
        assert f"the agent is agentd 0.1.0 and this client is {own}: {advice}" in ended.err
        assert advice in json.loads(as_json.err)["warning"]["message"]


def without(*fields: str):
    def change(method: str, result: Any) -> Any:
        if method == "hello" or not isinstance(result, dict):
            return result
        return {name: value for name, value in result.items() if name not in fields}

    return change


def test_fields_that_an_older_agent_does_not_send_have_their_defaults(socket_path):
    later = ("locked", "lockedAt", "lockReason", "protected", "wrongPassphrases")
    with Replay(socket_path, RECORDING, without(*later)):
        ended = in_process("status")
        with Client.connect(socket_path) as client:
            status = client.get_status()
    assert (ended.code, ended.err) == (0, "")
    assert (status.locked, status.protected, status.wrong_passphrases) == (False, False, 0)


@pytest.mark.parametrize("own", ["0.2.0", "0.0.9"])
def test_an_answer_that_cannot_be_read_is_explained_by_the_versions(socket_path, own_version, own):
    own_version(own)
    with Replay(socket_path, RECORDING, without("storePath")) as agent:
        ended = in_process("status")
        with Client.connect(socket_path) as client, pytest.raises(VersionsDifferError, match="storePath"):
            client.get_status()
    assert ended.code == 76
    assert f"the agent is agentd 0.1.0 and this client is {own}" in ended.err
    assert "does not answer as agentd does" not in ended.err
    assert agent.asked == ["getStatus", "hello"] * 2


@pytest.mark.parametrize(
    "error",
    [
        UnknownMethodError("no method 'lock'"),
        InvalidParamsError("lock: no parameter 'x'"),
        InvalidMessageError(),
    ],
)
def test_a_refusal_of_what_an_older_agent_does_not_know_says_so(socket_path, own_version, error):
    own_version("0.2.0")

    def refuses(method: str, result: Any) -> Any:
        if method != "hello":
            raise error
        return result

    with Replay(socket_path, RECORDING, refuses) as agent:
        ended = in_process("lock")
    assert ended.code == 76
    assert error.sentence in ended.err
    assert f"the agent is agentd 0.1.0 and this client is 0.2.0: {RESTART}" in ended.err
    assert agent.asked == ["lock", "hello"]


def test_an_unknown_outcome_is_explained_by_the_versions_too(socket_path, own_version):
    own_version("0.2.0")
    with (
        Replay(socket_path, RECORDING, without("token")),
        Client.connect(socket_path) as client,
        pytest.raises(OutcomeUnknownError, match=RESTART),
    ):
        client.create_token()


def test_an_answer_that_cannot_be_read_of_an_agent_of_the_same_version_is_what_it_was(socket_path):
    with (
        Replay(socket_path, RECORDING, without("storePath")),
        Client.connect(socket_path) as client,
        pytest.raises(ProtocolError, match="does not answer as agentd does") as refused,
    ):
        client.get_status()
    assert type(refused.value) is ProtocolError


def test_an_agent_whose_hello_cannot_be_read_either_is_no_agent(socket_path, own_version):
    own_version("0.2.0")
    with (
        Replay(socket_path, RECORDING, lambda method, result: {}),
        Client.connect(socket_path) as client,
        pytest.raises(ProtocolError, match="does not answer as agentd does"),
    ):
        client.get_status()


@pytest.mark.parametrize(
    ("server", "protocol", "own", "words"),
    [
        ("agentd 0.1.0", 1, "0.1.0", None),
        ("agentd 0.1.0", 2, "0.1.0", "protocol 2 and this client protocol 1: update this client"),
        ("agentd 0.1.0", 0, "0.1.0", "protocol 0 and this client protocol 1: restart the agent"),
        ("agentd 0.9.0", 1, "0.10.0", "restart the agent"),
        ("agentd 0.10.0", 1, "0.9.0", "update this client"),
        ("agentd 1.0.dev1", 1, "1.0.0", "restart the agent"),
        ("agentd \N{SUPERSCRIPT TWO}", 1, "1", "restart the agent"),
        ("agentd " + "9" * 5000, 1, "1", "update this client"),
        ("somebody else", 1, "0.1.0", None),
    ],
)
def test_what_differs_and_what_to_do(server, protocol, own, words):
    found = difference(Hello(server, protocol, []), own)
    assert found is None if words is None else words in found


def test_the_client_says_its_version_at_hello():
    assert calls.hello().params["client"] == f"agentd-client {agentd_client.__version__}"
