"""Settings, sockets, folders, keys, tokens: facts in, findings out."""

from __future__ import annotations

import pytest

from agentd.doctor import folders, key_file, settings_file, socket_place, token_file
from agentd.doctor.node import FILE, FOLDER, SOCKET, Node
from agentd.keys import Cost, KeyFileForm

MIB = 1024 * 1024


def judged(subject, facts) -> dict[str, str]:
    """The severity of each finding by its name; whatever is wrong says what to do."""
    findings = list(subject.judge(facts))
    assert {finding.name for finding in findings} <= set(subject.NAMES)
    for finding in findings:
        assert finding.says
        assert finding.remedy or finding.severity.word in ("ok", "note")
    return {finding.name: finding.severity.word for finding in findings}


@pytest.mark.parametrize(
    ("target", "failure", "severity"),
    [
        ("", None, "note"),
        ("/c", None, "ok"),
        ("/dotfiles/c", None, "ok"),
        ("/c", "/c: there is no setting 'x'; the settings are …", "error"),
        ("/c", "/c cannot be read: Permission denied", "error"),
    ],
)
def test_settings(target, failure, severity):
    facts = settings_file.Facts("/c", target, failure)
    assert judged(settings_file, facts) == {"settings.file": severity}


def test_where_a_link_to_the_settings_leads_is_said():
    (finding,) = settings_file.judge(settings_file.Facts("/c", "/dotfiles/c", None))
    assert finding.says == "/c, which leads to /dotfiles/c, can be used"


def listening(**changed) -> socket_place.Facts:
    facts = socket_place.Facts(
        "/r/agent.sock",
        Node("/r", FOLDER, 1, 0o700),
        Node("/r/agent.sock", SOCKET, 1, 0o600),
        1,
        [7],
        True,
        False,
        1,
    )
    return facts._replace(**changed)


@pytest.mark.parametrize(
    ("changed", "name", "severity"),
    [
        ({}, "socket.listener", "ok"),
        ({"path": "/" + "x" * 107}, "socket.path", "error"),
        ({"path": "/" + "x" * 106}, "socket.path", "ok"),
        ({"folder": Node("/r")}, "socket.folder", "note"),
        ({"folder": Node("/r", FOLDER, 1, 0o755)}, "socket.folder", "error"),
        ({"file": Node("/s", SOCKET, 1, 0o666)}, "socket.file", "error"),
        ({"file": Node("/s", FILE, 1, 0o600)}, "socket.file", "error"),
        ({"listeners": 2}, "socket.listener", "error"),
        ({"file": Node("/s")}, "socket.listener", "error"),
        ({"file": Node("/s"), "listeners": 0, "serving": []}, "socket.listener", "note"),
        ({"file": Node("/s"), "listeners": 0, "serving": [], "is_enabled": True}, "socket.listener", "note"),
        ({"listeners": 0, "serving": [], "is_taken": False}, "socket.listener", "warning"),
        ({"listeners": 0, "serving": []}, "socket.listener", "ok"),
        ({"listeners": 0, "is_taken": False}, "socket.listener", "note"),
        ({"listeners": 0, "is_taken": None}, "socket.listener", "note"),
    ],
)
def test_the_socket(changed, name, severity):
    assert judged(socket_place, listening(**changed))[name] == severity


PRIVATE = folders.Facts(
    Node("/s", FOLDER, 1, 0o700),
    Node("/s/keys", FOLDER, 1, 0o700),
    Node("/s/store", FOLDER, 1, 0o700),
    [Node("/s/store/data.mdb", FILE, 1, 0o600)],
    1,
)


@pytest.mark.parametrize(
    ("changed", "name", "severity"),
    [
        ({}, "store.files", "ok"),
        ({"state": Node("/s", FOLDER, 1, 0o755)}, "state.folder", "warning"),
        ({"state": Node("/s", FOLDER, 1, 0o777)}, "state.folder", "error"),
        ({"state": Node("/s", FOLDER, 2, 0o700)}, "state.folder", "error"),
        ({"state": Node("/s", FILE, 1, 0o600)}, "state.folder", "error"),
        ({"keys": Node("/s/keys", FOLDER, 1, 0o750)}, "keys.folder", "error"),
        ({"store": Node("/s/store", FOLDER, 2, 0o700)}, "store.folder", "error"),
        ({"files": [Node("/s/store/lock.mdb", FILE, 1, 0o644)]}, "store.files", "error"),
    ],
)
def test_folders(changed, name, severity):
    assert judged(folders, PRIVATE._replace(**changed))[name] == severity


def test_what_is_not_there_yet_is_a_note_or_nothing():
    assert judged(folders, PRIVATE._replace(state=Node("/s"))) == {"state.folder": "note"}
    empty = PRIVATE._replace(keys=Node("/k"), store=Node("/t"), files=[])
    assert judged(folders, empty) == {"state.folder": "ok"}


def form(memory_bytes: int | None, *leftovers: str) -> KeyFileForm:
    return KeyFileForm(None if memory_bytes is None else Cost(memory_bytes, 3), list(leftovers))


@pytest.mark.parametrize(
    ("key_form", "refusal", "has_store", "expected"),
    [
        (None, None, False, {"key.file": "note"}),
        (None, None, True, {"key.file": "error"}),
        (None, "k is refused: it has 3 bytes; restore it", True, {"key.file": "error"}),
        (form(None), None, True, {"key.file": "ok", "key.passphrase": "note"}),
        (form(256 * MIB), None, True, {"key.file": "ok", "key.passphrase": "ok"}),
        (form(32 * MIB), None, True, {"key.file": "ok", "key.passphrase": "note"}),
        (form(256 * MIB, ".root.key.0"), None, True, {"key.file": "ok", "key.passphrase": "ok", "key.leftovers": "warning"}),
    ],
)  # fmt: skip
def test_the_key_file(key_form, refusal, has_store, expected):
    assert judged(key_file, key_file.Facts("/k/root.key", key_form, refusal, has_store)) == expected


def test_the_parameters_of_a_passphrase_are_shown():
    says = next(iter(key_file.judge(key_file.Facts("k", form(256 * MIB), None, True)))).says
    assert "k" in says
    shown = [finding.says for finding in key_file.judge(key_file.Facts("k", form(256 * MIB), None, True))]
    assert "Argon2id, 256 MiB, 3 passes" in shown[1]


TOKEN = token_file.Facts("/r/session-token", True, None, Node("/r", FOLDER, 1, 0o700), None, 1)


@pytest.mark.parametrize(
    ("changed", "name", "severity"),
    [
        ({}, "token.file", "ok"),
        ({"has_token": False}, "token.file", "note"),
        (
            {"refusal": "token file is refused: others have rights to it; run `chmod 600`"},
            "token.file",
            "error",
        ),
        ({"folder": Node("/r", FOLDER, 2, 0o700)}, "token.folder", "warning"),
        ({"folder": Node("/r", FOLDER, 1, 0o777)}, "token.folder", "warning"),
        ({"folder": Node("/r", FOLDER, 0, 0o1777)}, "token.folder", "ok"),
        ({"variable": "AGENTD_TOKEN"}, "token.environment", "note"),
    ],
)
def test_the_token_file(changed, name, severity):
    assert judged(token_file, TOKEN._replace(**changed))[name] == severity


def test_a_descriptor_is_a_fine_way_to_hand_a_token_over():
    assert "token.environment" not in judged(token_file, TOKEN._replace(variable="AGENTD_TOKEN_FD"))
