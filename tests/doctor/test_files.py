"""The checks of settings, folders, key file and token file."""

from __future__ import annotations

import os

import pytest

from agentd.doctor.files import check_folders, check_key, check_settings, check_token, judge_form
from agentd.keys import Cost, KeyFileForm
from tests.doctor.judging import installation, judged
from tests.other_user import NOBODY, needs_root

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("failure", "severity"),
    [
        (None, "ok"),
        ("/c: there is no setting 'x'; the settings are …", "error"),
        ("/c cannot be read: Permission denied", "error"),
    ],
)
def test_settings(tmp_path, failure, severity):
    made = installation(tmp_path)
    made.config_path, made.config_failure = str(tmp_path / "c"), failure
    (tmp_path / "c").touch()
    assert judged(check_settings(made)) == {"settings.file": severity}


def test_no_settings_file_is_a_note(tmp_path):
    made = installation(tmp_path)
    made.config_path = str(tmp_path / "c")
    assert judged(check_settings(made)) == {"settings.file": "note"}


def test_the_target_of_a_link_to_the_settings_is_named(tmp_path):
    made = installation(tmp_path)
    made.config_path = str(tmp_path / "c")
    (tmp_path / "dotfiles").touch()
    (tmp_path / "c").symlink_to(tmp_path / "dotfiles")
    (finding,) = check_settings(made)
    assert finding.says == f"{tmp_path}/c, a link to {tmp_path}/dotfiles, can be used"


@pytest.fixture
def state(tmp_path):
    """A state folder as an agent makes it."""
    state = tmp_path / "state"
    for folder in (state, state / "keys", state / "store"):
        folder.mkdir(0o700)
    (state / "store" / "data.mdb").touch(0o600)
    return state


def judged_folders(state) -> dict[str, str]:
    return judged(check_folders(installation(state.parent)))


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
    ("key_form", "expected"),
    [
        (form(None), {"key.file": "ok", "key.passphrase": "note"}),
        (form(256 * MIB), {"key.file": "ok", "key.passphrase": "ok"}),
        (form(32 * MIB), {"key.file": "ok", "key.passphrase": "note"}),
        (form(256 * MIB, ".root.key.0"), {"key.file": "ok", "key.passphrase": "ok", "key.leftovers": "warning"}),
    ],
)  # fmt: skip
def test_the_form_of_a_key_file(key_form, expected):
    assert judged(judge_form("/k/root.key", key_form)) == expected


def test_the_key_file(state):
    (state / "store" / "data.mdb").unlink()
    assert judged(check_key(installation(state.parent))) == {"key.file": "note"}
    (state / "keys" / "root.key").write_text("abc")
    (state / "keys" / "root.key").chmod(0o600)
    assert judged(check_key(installation(state.parent))) == {"key.file": "error"}


def test_a_store_without_its_key_file_is_an_error(state):
    assert judged(check_key(installation(state.parent))) == {"key.file": "error"}


def test_the_parameters_of_a_passphrase_are_shown():
    _, passphrase = judge_form("k", form(256 * MIB))
    assert "Argon2id, 256 MiB, 3 passes" in passphrase.says


@pytest.fixture
def token(tmp_path):
    """A token file as `agentctl login` leaves it."""
    tmp_path.chmod(0o700)
    path = tmp_path / "session-token"
    path.touch(0o600)
    path.write_text("a-token")
    return path


def judged_token(token, **environ: str) -> dict[str, str]:
    return judged(
        check_token(installation(token.parent, {"AGENTD_SESSION_TOKEN_PATH": str(token)} | environ))
    )


def test_a_private_token_file_is_fine(token):
    assert judged_token(token) == {"token.file": "ok", "token.folder": "ok"}


def test_no_token_is_a_note(token):
    token.unlink()
    assert judged_token(token) == {"token.file": "note", "token.folder": "ok"}


def test_a_token_file_that_others_can_read_is_an_error(token):
    token.chmod(0o644)
    assert judged_token(token) == {"token.file": "error", "token.folder": "ok"}


def test_a_token_file_that_others_can_replace_is_a_warning(token):
    token.parent.chmod(0o777)
    assert judged_token(token)["token.folder"] == "warning"


def test_a_token_in_the_environment_is_a_note_and_one_in_a_descriptor_no_finding(token):
    assert judged_token(token, AGENTD_TOKEN="a-token")["token.environment"] == "note"
    assert "token.environment" not in judged_token(token, AGENTD_TOKEN_FD="3")
