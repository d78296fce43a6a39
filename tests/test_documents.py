"""What the documents promise about the wire is what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from agentd_client import errors
from agentd_client.protocol import limits, methods, reasons, results
from agentd_client.protocol.codec import Decoder, Notification, Request, Response

ROOT = Path(__file__).parent.parent
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
SECURITY = (ROOT / "docs" / "security.md").read_text()


def section(title: str) -> str:
    return PROTOCOL.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


NEVER_ANSWERED = {
    *("ERROR", "REQUEST", "LIFECYCLE"),  # no error by itself: the parent of others
    *("AGENT_UNREACHABLE", "AGENT_TIMEOUT", "OUTCOME_UNKNOWN", "FOREIGN_AGENT", "CLIENT_CLOSED"),
    *("PROTOCOL", "VERSIONS_DIFFER", "ENVIRONMENT", "INVALID_TOKEN", "TOKEN_FILE", "TOKEN_FILE_BUSY"),
    *("ALREADY_SERVING", "SOCKET_PATH", "STATE_FOLDER", "CONFIG"),
    *("STORE_IN_USE", "STORE_KEY_MISMATCH", "INVALID_PATH"),
    *("TRANSACTION_CONFLICT", "TRANSACTION_ENDED", "FOREIGN_TRANSACTION", "WRONG_LOOP"),
    *("SESSION_RUNNING", "SESSION_DESTROYED", "SESSION_MANAGER_RUNNING", "SESSION_MANAGER_DESTROYED"),
    *("DB_RUNNING", "DB_DESTROYED", "KEY_RING_RUNNING", "KEY_RING_DESTROYED", "KEY_RING_NOT_RUNNING"),
}
"""Errors of the client, of the agent's start, and of a program that embeds the core."""


def test_the_protocol_document_lists_every_error_that_an_agent_answers_with():
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", section("Errors"), re.MULTILINE)
    answered = {code: error.number for code, error in errors.ERRORS.items() if code not in NEVER_ANSWERED}
    assert {code: int(number) for number, code in rows} == answered
    assert set(errors.ERRORS) >= NEVER_ANSWERED


def test_every_reason_is_documented():
    codes = {name for name in vars(reasons) if name.isupper()} - {"SENTENCES", "ENDINGS"}
    assert codes == {*reasons.SENTENCES, *reasons.ENDINGS}
    for ending in reasons.ENDINGS:
        assert f"`{ending}`" in section("Events") + section("Methods")
    assert set(reasons.SENTENCES) == set(re.findall(r"^\| `([A-Z_]+)` \|", section("Methods"), re.MULTILINE))


def test_the_limits_in_the_document_are_those_of_the_code():
    table = section("Limits").replace(",", "")
    for limit in (
        limits.MAX_MESSAGE_BYTES,
        limits.MAX_CONTAINER_ITEMS,
        limits.MAX_CONTAINERS,
        limits.MAX_NESTING,
        limits.MAX_METHOD_CHARACTERS,
        limits.MAX_TOKEN_CHARACTERS,
        limits.MAX_LABEL_CHARACTERS,
        limits.MAX_PASSPHRASE_BYTES,
        limits.MAX_IN_FLIGHT,
        limits.MAX_LOOKED_AT,
        limits.MAX_CONNECTIONS,
        limits.MAX_VERIFY_CONNECTIONS,
        limits.MAX_VERIFY_CONNECTIONS_OF_UID,
        int(limits.MESSAGE_SECONDS),
        int(limits.REPLY_SECONDS),
    ):
        assert re.search(rf"\| {limit}\b", table), limit
    assert f"{limits.MAX_EXPIRY_SECONDS:,}" in section("Methods")


def test_every_kind_of_event_and_every_method_is_documented():
    assert {*results.EVENT_KINDS, results.MISSED} == set(
        re.findall(r"^\| `(\w+)` \| [^|]+ \|$", section("Events"), re.MULTILINE)
    )
    named = {method.name for method in vars(methods).values() if isinstance(method, methods.Method)}
    assert named == set(re.findall(r"^### (\w+)$", section("Methods"), re.MULTILINE))
    for reason in results.LOCK_REASONS:
        assert f'`"{reason}"`' in section("Methods")


def test_the_worked_bytes_decode_to_the_messages_they_stand_under():
    shown_bytes = section("Worked bytes") + section("The verify socket")
    blocks = re.findall(r"`(\[[0-2], [^`]+)`[^`]*?:\n\n    ([0-9a-f ]+)\n", shown_bytes)
    assert len(blocks) == 8
    for shown, bytes_ in blocks:
        (message,) = Decoder().receive(bytes.fromhex(bytes_))
        kind = {Request: 0, Response: 1, Notification: 2}[type(message)]
        python = shown.replace("nil", "None").replace("false", "False").replace("true", "True")
        assert [kind, *message] == ast.literal_eval(python)


def test_every_promise_names_tests_that_are_there():
    rows = re.findall(r"^\| \d+ \| .*? \| (.*) \|$", SECURITY, re.MULTILINE)
    assert len(rows) >= 17
    for row in rows:
        names = re.findall(r"`((?:tests|agentd)/[^`]+)`", row)
        assert names, row
        for name in names:
            path, _, function = name.partition("::")
            assert (ROOT / path).exists(), name
            assert f"def {function}(" in (ROOT / path).read_text() if function else True, name
