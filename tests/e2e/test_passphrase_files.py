"""Passphrase files as editors write them, for the agent's start, for agentctl, and between the two."""

from __future__ import annotations

import os

import pytest

from agentd_client import Client, PassphraseError
from tests.e2e.daemon import START_SECONDS, scratch_home, serving


@pytest.fixture
def home():
    with scratch_home() as home:
        yield home


def file_with(home, content: bytes) -> str:
    path = home.path / "secret"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    return str(path)


def test_every_editors_file_holds_the_passphrase_that_is_typed(home):
    assert (
        home.agentd("init", "--passphrase-file", file_with(home, b"\xef\xbb\xbfgood one\r\n")).returncode == 0
    )
    with serving(home) as agent:
        for content in (b"good one", b"good one\n", b"\xef\xbb\xbfgood one", b"good one\r\n"):
            done = home.agentctl("unlock", "--passphrase-file", file_with(home, content))
            assert done.returncode == 0, done.stderr
            assert home.agentctl("lock").returncode == 0
        done = home.agentctl("unlock", "--passphrase-fd", "0", input="good one\r\n")
        assert done.returncode == 0, done.stderr
        assert home.agentctl("lock").returncode == 0
        with agent.client() as client:
            client.unlock(b"good one\r\n")  # over the wire, whoever sends it
            client.lock()
            with pytest.raises(PassphraseError):
                client.unlock(" good one")


@pytest.mark.parametrize("content", [b"\r\n", b"   \n", b"caf\xe9\n", b"bell\x07\n"])
def test_what_cannot_be_meant_is_refused_when_it_is_set_and_nothing_is_changed(home, content):
    path = file_with(home, content)
    done = home.agentd("init", "--passphrase-file", path)
    assert done.returncode == 78, done.stderr
    assert "passphrase" in done.stderr
    assert not (home.state / "keys" / "root.key").exists()
    with serving(home):
        done = home.agentctl("passwd", "--new-passphrase-file", path)
        assert done.returncode == 77, done.stderr
        with Client.connect(str(home.socket), timeout=START_SECONDS) as client:
            assert not client.get_status().protected


def test_beginning_anew_with_one_that_cannot_be_meant_forgets_nothing(home):
    assert home.agentd("init").returncode == 0
    before = (home.state / "keys" / "root.key").read_bytes()
    done = home.agentd("init", "--fresh", "--yes", "--passphrase-file", file_with(home, b"  \n"))
    assert (done.returncode, "white space alone" in done.stderr) == (78, True), done.stderr
    assert (home.state / "keys" / "root.key").read_bytes() == before
    assert (home.state / "store" / "data.mdb").exists()
