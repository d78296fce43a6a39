"""What others could replace or read, by real folders; another user's with real owners."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agentd_client.private import folders_fault, make_folders, private_fault
from tests.other_user import NOBODY, needs_root


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    path = tmp_path / "a" / "b" / "c"
    path.mkdir(parents=True)
    return path


def test_folders_of_ones_own_and_of_root_below_the_root_are_no_fault(deep: Path) -> None:
    assert folders_fault(deep) is None
    assert folders_fault("/") is None
    assert folders_fault(deep / "not" / "there") is None


@pytest.mark.parametrize("bits", [0o020, 0o002, 0o077])
@pytest.mark.parametrize("above", range(3))
def test_every_folder_that_others_may_write_to_is_named_with_the_command(
    deep: Path, above: int, bits: int
) -> None:
    folder = (deep, *deep.parents)[above]
    folder.chmod(0o700 | bits)
    fault = folders_fault(deep)
    assert fault is not None
    assert fault.path == str(folder)
    assert str(fault) == (
        f"{folder} is refused: others may write to it (mode {0o700 | bits:04o}); run `chmod go-w {folder}`"
    )
    subprocess.run(["chmod", "go-w", folder], check=True)
    assert folders_fault(deep) is None


def test_a_sticky_folder_passes(deep: Path) -> None:
    deep.parent.chmod(0o1777)
    assert folders_fault(deep) is None


def test_the_sticky_bit_excuses_no_file(deep: Path) -> None:
    file = deep / "config.toml"
    file.touch()
    file.chmod(0o1666)
    fault = folders_fault(file)
    assert fault is not None
    assert (fault.path, "others may write to it" in fault.reason) == (str(file), True)


@needs_root
@pytest.mark.parametrize("above", range(3))
def test_a_folder_of_another_user_is_named(deep: Path, above: int) -> None:
    folder = (deep, *deep.parents)[above]
    os.chown(folder, 4711, -1)
    fault = folders_fault(deep)
    assert fault is not None
    assert (fault.path, fault.reason) == (str(folder), "it belongs to uid 4711, and you are uid 0")
    assert "chown" not in fault.remedy, "root would take the folder away from its owner"


@needs_root
def test_another_user_is_told_to_have_it_given_back(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(deep, 4711, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    fault = folders_fault(deep)
    assert fault is not None
    assert f"`chown 1234 {deep}`" in fault.remedy
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert folders_fault(deep) is None, "its own and root's"


@pytest.mark.parametrize("relative", [True, False])
def test_a_link_is_worth_what_its_own_folders_and_its_targets_are_worth(
    deep: Path, tmp_path: Path, relative: bool
) -> None:
    links = tmp_path / "links"
    links.mkdir()
    link = links / "link"
    link.symlink_to("../a/b" if relative else deep.parent)
    assert folders_fault(link / "c") is None
    links.chmod(0o777)
    fault = folders_fault(link / "c")
    assert fault is not None
    assert fault.path == str(links)
    links.chmod(0o700)
    deep.parent.parent.chmod(0o777)
    fault = folders_fault(link / "c")
    assert fault is not None
    assert fault.path == str(deep.parent.parent)


@needs_root
def test_a_link_that_another_user_put_into_a_sticky_folder_is_refused(tmp_path: Path, deep: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / "link"
    link.symlink_to(deep)
    assert folders_fault(link) is None
    os.chown(link, 4711, -1, follow_symlinks=False)
    fault = folders_fault(link)
    assert fault is not None
    assert (fault.path, "4711" in fault.reason) == (str(link), True)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(OSError) as caught:
        folders_fault(tmp_path / "one")
    assert caught.value.errno == errno.ELOOP


def test_a_file_is_judged_as_its_folders_are_and_a_device_is_nobodys(deep: Path) -> None:
    file = deep / "file"
    file.touch(0o644)
    assert folders_fault(file) is None
    file.chmod(0o664)
    fault = folders_fault(file)
    assert fault is not None
    assert fault.remedy == f"run `chmod go-w {file}`"
    assert folders_fault(os.devnull) is None


def test_a_path_with_blanks_is_quoted_in_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "a b; rm"
    folder.mkdir()
    folder.chmod(0o777)
    fault = folders_fault(folder)
    assert fault is not None
    assert fault.remedy == f"run `chmod go-w '{folder}'`"


@pytest.mark.parametrize("mask", [0, 0o022, 0o777])
def test_folders_are_made_private_under_any_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        assert make_folders(tmp_path / "x" / "y") is None
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("x", "x/y")] == [0o700, 0o700]
    (tmp_path / "x" / "y").chmod(0o755)
    assert make_folders(tmp_path / "x" / "y") is None
    assert stat.S_IMODE((tmp_path / "x" / "y").stat().st_mode) == 0o755, "what is there stays as it is"


def test_nothing_is_made_where_a_folder_above_is_open(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    fault = make_folders(tmp_path / "x" / "y")
    assert fault is not None
    assert fault.path == str(tmp_path)
    assert os.listdir(tmp_path) == []


@needs_root
def test_a_folder_that_another_user_makes_at_that_moment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o1777)
    mkdir = os.mkdir

    def made_by_another(path: str, mode: int) -> None:
        mkdir(path, mode)
        os.chown(path, 4711, -1)
        raise FileExistsError(errno.EEXIST, "File exists", path)

    monkeypatch.setattr(os, "mkdir", made_by_another)
    fault = make_folders(tmp_path / "x")
    assert fault is not None
    assert "4711" in fault.reason


def test_what_is_private_is_ones_own_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch(0o600)
    assert private_fault(file, file.stat()) is None
    for bits in (0o640, 0o602, 0o601):
        file.chmod(bits)
        fault = private_fault(file, file.stat())
        assert fault is not None
        assert (f"{bits:04o}" in fault.reason, fault.remedy) == (True, f"run `chmod 600 {file}`")
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    fault = private_fault(file, file.stat())
    assert fault is not None
    assert fault.reason == f"it belongs to uid {uid}, not to you (uid {uid + 1})"


# --- a user namespace, in which root and all others have one number ---

_PROGRAM = "import sys; from agentd_client.private import folders_fault; print(folders_fault(sys.argv[1]))"


def seen_in_a_namespace(path: Path) -> str:
    """What a process says that knows its own user alone, as in a unit with PrivateUsers=yes."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is missing")
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", _PROGRAM, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 and "unshare" in done.stderr:
        pytest.skip(f"no user namespaces: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_root
def test_whoever_the_namespace_does_not_know_may_be_root_but_not_where_anybody_could_have_made_it(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "mine" / "theirs"
    folder.mkdir(parents=True)
    os.chown(folder, 4711, -1)
    assert seen_in_a_namespace(folder) == "None"
    folder.parent.chmod(0o1777)
    assert f"{folder} is refused: it belongs to uid {NOBODY}" in seen_in_a_namespace(folder)
    folder.parent.chmod(0o755)
    folder.chmod(0o777)
    assert f"run `chmod go-w {folder}`" in seen_in_a_namespace(folder)


@needs_root
def test_outside_of_such_a_namespace_the_overflow_uid_is_a_user_like_others(deep: Path) -> None:
    os.chown(deep, NOBODY, -1)
    assert folders_fault(deep) is not None
