"""How agentd was installed, told from what pipx, uv and pip leave behind."""

from __future__ import annotations

import json
import os
import site
import sys
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import pytest

from agentd import distribution
from agentd.distribution import Installed, Way, how_installed

RECORDED = ("../../../bin/agentd", "../../../share/man/man1/agentd.1", "agentd/__init__.py")


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """An environment that has nothing but agentd-daemon, whose command and manual page are empty files."""
    packages = tmp_path / "lib" / "python3" / "site-packages"
    info = packages / "agentd_daemon-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: agentd-daemon\nVersion: 1\n")
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in RECORDED))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "agentd").touch(0o755)
    page = tmp_path / "share" / "man" / "man1" / "agentd.1"
    page.parent.mkdir(parents=True)
    page.touch()  # Python 3.12 and later list only files that exist
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(distribution, "distribution", lambda name: Distribution.at(info))
    return tmp_path


def origin(prefix: Path, **recorded: object) -> None:
    [info] = prefix.rglob("*.dist-info")
    (info / "direct_url.json").write_text(json.dumps({"url": "file:///source", **recorded}))


def test_commands_and_pages_are_found_where_they_were_installed(prefix):
    assert how_installed().files == {
        "bin/agentd": prefix / "bin" / "agentd",
        "share/man/man1/agentd.1": prefix / "share" / "man" / "man1" / "agentd.1",
    }


def test_each_way_is_told_by_what_it_leaves_behind(prefix, monkeypatch):
    assert how_installed().way is Way.PIP
    origin(prefix, dir_info={})
    assert how_installed().way is Way.PIP
    origin(prefix, dir_info={"editable": True})
    assert how_installed().way is Way.CLONE
    origin(prefix, archive_info={})
    monkeypatch.setattr(site, "getusersitepackages", lambda: f"{prefix}/lib/python3/site-packages")
    assert how_installed().way is Way.USER
    (prefix / "uv-receipt.toml").touch()
    assert how_installed().way is Way.UV
    (prefix / "pipx_metadata.json").touch()
    assert how_installed().way is Way.PIPX


def test_what_runs_from_a_folder_is_not_installed(monkeypatch):
    def none(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(distribution, "distribution", none)
    installed = how_installed()
    assert not installed.files
    assert installed.command("agentd") == "agentd"


def test_a_command_is_named_by_its_path_unless_path_leads_to_it(prefix):
    installed = how_installed()
    assert installed.command("agentd", {"PATH": f"{prefix}/bin"}) == "agentd"
    assert installed.command("agentd", {"PATH": "/nonexistent"}) == f"{prefix}/bin/agentd"
    linked = prefix / "linked"
    linked.mkdir()
    (linked / "agentd").symlink_to(prefix / "bin" / "agentd")
    assert installed.command("agentd", {"PATH": str(linked)}) == "agentd"
    other = prefix / "other"
    other.mkdir()
    (other / "agentd").touch(0o755)
    assert installed.command("agentd", {"PATH": f"{other}{os.pathsep}{linked}"}) == f"{prefix}/bin/agentd"


@pytest.mark.parametrize("way", Way)
def test_no_advice_takes_agentd_from_an_index(way):
    """The names may be another project's there; pipx and uv find what is installed by them."""
    installed = Installed(way, {"bin/agentd": Path("/home/me/.local/bin/agentd")})
    advice = (installed.to_add("jeepney"), installed.to_find_commands(), installed.to_remove())
    assert len({*advice}) == 3
    for words in advice:
        assert "install agentd" not in words.replace("uninstall agentd", "")
    assert advice[0].endswith("jeepney")


def test_only_pip_user_needs_the_users_packages():
    assert {way: Installed(way, {}).isolation for way in Way} == {
        way: "-EP" if way is Way.USER else "-I" for way in Way
    }
