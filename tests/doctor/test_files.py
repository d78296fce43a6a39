"""The checks of settings, folders, key file and token file."""

from __future__ import annotations

import os

import pytest
from msgspec.structs import replace

from agentd.config import load
from agentd.doctor.files import Folders, KeyFile, SettingsFile, Token
from agentd.doctor.installation import Installation, Limits
from agentd.doctor.system import FOLDER, Node
from agentd.keys import Cost, KeyFileForm
from tests.doctor.judging import OPEN, judged
from tests.other_user import NOBODY, needs_root

MIB = 1024 * 1024


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
    facts = SettingsFile("/c", target, failure)
    assert judged(facts) == {"settings.file": severity}


def test_the_target_of_a_link_to_the_settings_is_named():
    (finding,) = SettingsFile("/c", "/dotfiles/c", None).judge()
    assert finding.says == "/c, a link to /dotfiles/c, can be used"


@pytest.fixture
def state(tmp_path):
    """A state folder as an agent makes it."""
    state = tmp_path / "state"
    for folder in (state, state / "keys", state / "store"):
        folder.mkdir(0o700)
    (state / "store" / "data.mdb").touch(0o600)
    return state


def with_state(state) -> Installation:
    settings = load(os.devnull, socket_path="/s", state_path=str(state))
    return Installation(settings, config_path=os.devnull, config_failure=None, limits=Limits(None, None))


def judged_folders(state) -> dict[str, str]:
    return judged(Folders.gather(with_state(state)))


ALL_PRIVATE = dict.fromkeys(("state.folder", "keys.folder", "store.folder", "store.files"), "ok")


def test_folders_as_an_agent_makes_them_are_fine(state):
    assert judged_folders(state) == ALL_PRIVATE


@pytest.mark.parametrize(
    ("path", "mode", "name", "severity"),
    [
        (".", 0o755, "state.folder", "warning"),
        (".", 0o777, "state.folder", "error"),
        (".", 0o1777, "state.folder", "error"),
        ("keys", 0o750, "keys.folder", "error"),
        ("store", 0o711, "store.folder", "error"),
        ("store/data.mdb", 0o644, "store.files", "error"),
    ],
)
def test_what_is_open_to_others_is_found(state, path, mode, name, severity):
    (state / path).chmod(mode)
    assert judged_folders(state) == ALL_PRIVATE | {name: severity}


@needs_root
@pytest.mark.parametrize(
    ("path", "name"),
    [
        (".", "state.folder"),
        ("keys", "keys.folder"),
        ("store", "store.folder"),
        ("store/data.mdb", "store.files"),
    ],
)
def test_what_belongs_to_another_user_is_found(state, path, name):
    os.chown(state / path, NOBODY, NOBODY)
    assert judged_folders(state) == ALL_PRIVATE | {name: "error"}


def test_a_file_in_the_place_of_the_state_folder_is_an_error(tmp_path):
    (tmp_path / "state").touch()
    assert judged_folders(tmp_path / "state") == {"state.folder": "error"}


def test_a_folder_that_does_not_exist_yet_is_a_note_or_nothing(tmp_path):
    assert judged_folders(tmp_path / "state") == {"state.folder": "note"}
    (tmp_path / "state").mkdir(0o700)
    assert judged_folders(tmp_path / "state") == {"state.folder": "ok"}


def form(memory_bytes: int | None, *leftovers: str) -> KeyFileForm:
    return KeyFileForm(None if memory_bytes is None else Cost(memory_bytes, 3), list(leftovers))


@pytest.mark.parametrize(
    ("key_form", "refusal", "expected"),
    [
        (None, None, {"key.file": "note"}),
        (None, "k is refused: it has 3 bytes; restore it", {"key.file": "error"}),
        (form(None), None, {"key.file": "ok", "key.passphrase": "note"}),
        (form(256 * MIB), None, {"key.file": "ok", "key.passphrase": "ok"}),
        (form(32 * MIB), None, {"key.file": "ok", "key.passphrase": "note"}),
        (form(256 * MIB, ".root.key.0"), None, {"key.file": "ok", "key.passphrase": "ok", "key.leftovers": "warning"}),
    ],
)  # fmt: skip
def test_the_key_file(key_form, refusal, expected):
    assert judged(KeyFile("/k/root.key", key_form, refusal)) == expected


def test_a_store_without_its_key_file_is_an_error(state):
    assert judged(KeyFile.gather(with_state(state))) == {"key.file": "error"}


def test_the_parameters_of_a_passphrase_are_shown():
    _, passphrase = KeyFile("k", form(256 * MIB), None).judge()
    assert "Argon2id, 256 MiB, 3 passes" in passphrase.says


TOKEN = Token("/r/session-token", True, None, Node("/r", FOLDER, 0o700), None, None)


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
        ({"folder_fault": OPEN}, "token.folder", "warning"),
        ({}, "token.folder", "ok"),
        ({"variable": "AGENTD_TOKEN"}, "token.environment", "note"),
    ],
)
def test_the_token_file(changed, name, severity):
    assert judged(replace(TOKEN, **changed))[name] == severity


def test_a_token_in_a_descriptor_is_no_finding():
    assert "token.environment" not in judged(replace(TOKEN, variable="AGENTD_TOKEN_FD"))
