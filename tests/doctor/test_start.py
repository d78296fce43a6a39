"""What keeps an agent from starting is found without changing anything."""

from __future__ import annotations

import os

import pytest
from msgspec.structs import replace

from agentd.doctor.start import check_start, obstacle
from agentd.locking import LockMark
from tests.doctor.judging import installation, judged
from tests.other_user import NOBODY, as_user, needs_root

FINE = {"start.state": "ok", "start.socket": "ok"}


def test_a_start_that_works(tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / "v").mkdir(0o711)
    (tmp_path / "passphrase").touch(0o600)
    (tmp_path / "passphrase").write_text("long enough to be taken")
    made = installation(tmp_path)
    assert judged(check_start(made)) == FINE
    made.settings = replace(
        made.settings,
        verify_socket_path=f"{tmp_path}/v/s",
        ask_socket_path=f"{tmp_path}/v/a",
        passphrase_file=f"{tmp_path}/passphrase",
    )
    assert judged(check_start(made)) == FINE | dict.fromkeys(
        ("start.verify", "start.ask", "start.passphrase"), "ok"
    )


def test_links_that_lead_nowhere_are_no_obstacle(tmp_path):
    tmp_path.chmod(0o700)
    made = installation(tmp_path)
    made.settings.store_path.mkdir(0o700, parents=True)
    (made.settings.store_path / "data.mdb").symlink_to("nothing")  # a finding of the files
    LockMark(made.settings.lock_mark_path).set()
    assert judged(check_start(made)) == FINE


@pytest.mark.parametrize(
    ("setting", "value", "name"),
    [
        ("state_path", "/open/state", "start.state"),
        ("socket_path", "/open/s", "start.socket"),
        ("verify_socket_path", "/open/v", "start.verify"),
        ("ask_socket_path", "/open/a", "start.ask"),
        ("passphrase_file", "/nothing", "start.passphrase"),
    ],
)
def test_each_obstacle_is_an_error_and_says_what_to_do(tmp_path, setting, value, name):
    tmp_path.chmod(0o700)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    made = installation(tmp_path)
    made.settings = replace(made.settings, **{setting: f"{tmp_path}{value}"})
    assert judged(check_start(made)) == FINE | {name: "error"}


def test_with_no_obstacle_nothing_is_created(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert obstacle([tmp_path, tmp_path / "a" / "b"], [file], [file, tmp_path / "nothing"]) is None
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert (
        obstacle([file / "below"], [], []) == f"{file} is not a folder; move it away, or choose another path"
    )


def test_a_folder_that_others_can_write_to_is_an_obstacle(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    said = obstacle([tmp_path / "open" / "state"], [], [])
    assert "others may write to it (mode 0777)" in said
    assert said.endswith(f"; run `chmod go-w {tmp_path}/open`")


def test_a_loop_of_links_is_an_obstacle(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert "Too many levels of symbolic links" in obstacle([tmp_path / "a" / "state"], [], [])


@needs_root
@pytest.mark.parametrize(
    ("mode", "says"),
    [
        (0o500, " cannot be written by you; "),
        (0o200, "/state cannot be reached: Permission denied; "),
        (0o700, None),
    ],
)
def test_a_folder_that_the_user_cannot_write_to_is_an_obstacle(shared_folder, mode, says):
    own = shared_folder / "own"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    own.chmod(mode)
    said = as_user(lambda: obstacle([own / "state"], [], []))
    assert said is None if says is None else said.startswith(f"{own}{says}")


@needs_root
def test_files_that_cannot_be_used_are_named(shared_folder):
    own = shared_folder / "own"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    for name, mode in (("key", 0o000), ("data", 0o400)):
        (own / name).touch(mode)
        (own / name).chmod(mode)
        os.chown(own / name, NOBODY, NOBODY)
    assert as_user(lambda: obstacle([own], [own / "key"], [])) == f"{own}/key cannot be read; see who owns it"
    assert as_user(lambda: obstacle([own], [], [own / "data"])).startswith(
        f"{own}/data cannot be written by you"
    )
    assert as_user(lambda: obstacle([own], [own / "data"], [])) is None


@pytest.fixture
def shared_folder():
    """Where another user gets to, which pytest's own folders do not let it."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory(prefix="agentd-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
