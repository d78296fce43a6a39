from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from agentd.keys import KeyRing, argon2, change_passphrase, is_protected, key_file, memory, paserk
from agentd.keys.argon2 import Cost
from agentd.keys.passphrase import Passphrase, PassphraseText
from agentd_client.errors import AgentLockedError, KeyFileError, PassphraseError
from agentd_client.lifecycle import State

CHEAP = Cost(argon2.MIN_MEMORY_BYTES, argon2.MIN_PASSES)
OLD, NEW = "the old passphrase", "the new passphrase"


async def make(keys: Path, passphrase: PassphraseText | None = OLD) -> KeyRing:
    return await KeyRing.create_key_ring(keys_path=keys, passphrase=passphrase, cost=CHEAP)


async def agent_id(keys: Path, passphrase: PassphraseText | None) -> str:
    async with await make(keys, passphrase) as ring:
        return ring.agent_id


async def test_a_new_key_file_with_a_passphrase_is_one_private_line(tmp_path):
    made = await agent_id(tmp_path / "keys", OLD)
    file = tmp_path / "keys" / "root.key"
    text = file.read_text("ascii")
    assert text.startswith("k4.local-pw.")
    assert text.index("\n") == len(text) - 1 == 172
    assert paserk.parse(text.strip()).cost == CHEAP
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path / "keys") == ["root.key"]
    assert is_protected(file) is True
    assert await agent_id(tmp_path / "keys", OLD) == made


async def test_the_form_of_a_file_is_known_without_a_passphrase(tmp_path):
    file = tmp_path / "keys" / "root.key"
    assert is_protected(file) is None
    await agent_id(tmp_path / "keys", None)
    assert is_protected(file) is False
    file.write_bytes(b"x" * 40)
    with pytest.raises(KeyFileError, match="40 bytes"):
        is_protected(file)


async def test_the_calibrated_cost_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(key_file, "calibrated", lambda: Cost(20 * argon2.MIB, 3))
    await KeyRing.create_key_ring(keys_path=tmp_path / "keys", passphrase=OLD)
    assert paserk.parse((tmp_path / "keys" / "root.key").read_text().strip()).cost == (20 * argon2.MIB, 3, 1)


async def test_without_the_passphrase_it_is_locked_and_with_a_wrong_one_refused(tmp_path):
    ring = await make(tmp_path / "keys")
    await ring.stop()
    with pytest.raises(AgentLockedError, match="agentctl unlock"):
        await ring.start()
    sentences = set()
    for wrong in ("The old passphrase", OLD + " ", OLD.encode() + b"\t", "\n" + OLD, "x"):
        with pytest.raises(PassphraseError) as refused:
            await ring.start(passphrase=wrong)
        sentences.add(refused.value.sentence)
    assert sentences == {"that is not the passphrase of the key file"}
    assert ring.state is State.STOPPED
    await ring.start(passphrase=OLD)


async def test_a_passphrase_for_a_raw_key_file_is_refused(tmp_path):
    before = await agent_id(tmp_path / "keys", None)
    with pytest.raises(PassphraseError, match="has no passphrase"):
        await make(tmp_path / "keys", OLD)
    assert await agent_id(tmp_path / "keys", None) == before


async def test_fresh_draws_a_new_key_with_the_passphrase_that_is_given(tmp_path):
    before = await agent_id(tmp_path / "keys", OLD)
    fresh = await KeyRing.create_key_ring(keys_path=tmp_path / "keys", passphrase=NEW, fresh=True, cost=CHEAP)
    assert fresh.agent_id == await agent_id(tmp_path / "keys", NEW) != before


async def test_key_rings_made_at_once_with_a_passphrase_share_one_root_key(tmp_path):
    made: list[str] = []

    async def start() -> None:
        made.append(await agent_id(tmp_path / "keys", OLD))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(start)
    assert len(made) == 4
    assert len(set(made)) == 1


async def test_of_two_first_starts_with_different_passphrases_one_is_refused(tmp_path, monkeypatch):
    write = key_file.write_key

    def overtaken(file: Path, content: memoryview, *, replace: bool) -> bool:
        other = paserk.wrap(bytes(32), NEW.encode(), salt=bytes(16), nonce=bytes(24), cost=CHEAP)
        assert write(file, memoryview(other.encode() + b"\n"), replace=False)
        return write(file, content, replace=replace)

    monkeypatch.setattr(key_file, "write_key", overtaken)
    with pytest.raises(PassphraseError):
        await make(tmp_path / "keys", OLD)


@pytest.mark.parametrize("handed", ["pässword", "pässword".encode(), bytearray("pässword".encode())])
async def test_text_and_its_utf_8_bytes_are_the_same_passphrase(tmp_path, handed):
    await agent_id(tmp_path / "keys", "pässword")
    await agent_id(tmp_path / "keys", handed)
    with pytest.raises(PassphraseError):
        await make(tmp_path / "keys", "pa\u0308ssword")  # nothing is normalised


@pytest.mark.parametrize("handed", ["", b"", "x" * 1025, "é" * 513, "a\0b", b"\0", "\ud800"])
async def test_an_invalid_passphrase_is_refused_before_anything_is_created(tmp_path, handed):
    with pytest.raises(PassphraseError) as refused:
        await make(tmp_path / "keys", handed)
    assert "x" * 10 not in repr(refused.value)
    assert not (tmp_path / "keys").exists()


async def test_the_longest_passphrase_works_and_every_byte_of_it_counts(tmp_path):
    await agent_id(tmp_path / "keys", "é" * 512)
    with pytest.raises(PassphraseError):
        await make(tmp_path / "keys", "é" * 511 + "è")


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", "{}\r", "{}\n\n", "\ufeff{}", "\ufeff{}\r\n"])
async def test_line_ends_and_a_byte_order_mark_are_no_part_of_it_whichever_comes_first(tmp_path, around):
    bare = await agent_id(tmp_path / "bare", OLD)
    assert await agent_id(tmp_path / "bare", around.format(OLD)) == bare
    around_it = await agent_id(tmp_path / "around", around.format(OLD))
    assert await agent_id(tmp_path / "around", OLD.encode()) == around_it
    await change_passphrase(tmp_path / "around", around.format(OLD), around.format(NEW), cost=CHEAP)
    assert await agent_id(tmp_path / "around", NEW) == around_it


REFUSED_WHEN_SET = {
    b"\r\n": "empty",
    b"\xef\xbb\xbf\n": "empty",
    b"   ": "white space alone",
    " \u3000\u200b".encode(): "white space alone",
    b"a\tb": "without control characters",
    b"a\nb": "without control characters",
    b"bell\x07": "without control characters",
    b"\x1b[A": "without control characters",
    b"del\x7f": "without control characters",
    "next\x85line".encode(): "without control characters",
    b"caf\xe9": "UTF-8",
    b"caf\xc3": "UTF-8",
    b"\xff\xfep": "UTF-8",
}


def lock_as_before(folder: Path, passphrase: bytes) -> None:
    """A key file from before line endings and byte order marks were stripped."""
    folder.mkdir(0o700)
    wrapped = paserk.wrap(bytes(32), passphrase, salt=bytes(16), nonce=bytes(24), cost=CHEAP)
    assert key_file.write_key(folder / "root.key", memoryview(wrapped.encode() + b"\n"), replace=False)


@pytest.mark.parametrize(("given", "reason"), REFUSED_WHEN_SET.items())
async def test_an_unintended_passphrase_cannot_be_set_but_still_opens_an_old_file(tmp_path, given, reason):
    with pytest.raises(PassphraseError, match=reason):
        await make(tmp_path / "keys", given)
    assert not (tmp_path / "keys" / "root.key").exists()
    await agent_id(tmp_path / "keys", OLD)
    with pytest.raises(PassphraseError, match=reason):
        await change_passphrase(tmp_path / "keys", OLD, given, cost=CHEAP)
    await agent_id(tmp_path / "keys", OLD)
    lock_as_before(tmp_path / "before", given)
    before = await agent_id(tmp_path / "before", given)
    await change_passphrase(tmp_path / "before", given, NEW, cost=CHEAP)
    assert await agent_id(tmp_path / "before", NEW) == before


@pytest.mark.parametrize("given", [b"secret\r", b"secret\n", b"\xef\xbb\xbfsecret", b"\xef\xbb\xbfsecret\r"])
async def test_a_line_ending_that_was_part_of_an_old_passphrase_still_counts(tmp_path, given):
    lock_as_before(tmp_path / "before", given)
    before = await agent_id(tmp_path / "before", given)
    with pytest.raises(PassphraseError):
        await make(tmp_path / "before", b"secret")
    await change_passphrase(tmp_path / "before", given, given, cost=CHEAP)
    assert await agent_id(tmp_path / "before", b"secret") == before


@pytest.mark.parametrize(
    "good",
    ["x", " spaces around ", "日本語", "emoji 👩\u200d💻", "\u0646\u06cc\u0645\u200c\u0641", "a\u00a0b"],
)
async def test_a_typed_passphrase_is_used_unchanged(tmp_path, good):
    await agent_id(tmp_path / "keys", good)
    if good != good.strip():
        with pytest.raises(PassphraseError):
            await make(tmp_path / "keys", good.strip())


def test_a_passphrase_shows_nothing_and_is_zeros_once_wiped():
    given = bytearray(b"correct horse")
    passphrase = Passphrase(given)
    view = passphrase.view
    assert bytes(view) == b"correct horse"
    assert "correct" not in repr(passphrase) + str(passphrase)
    passphrase.wipe()
    assert bytes(view) == bytes(13)
    assert len(passphrase.view) == 0
    assert given == b"correct horse", "what was handed over is the caller's"


async def test_every_passphrase_is_wiped_whatever_the_outcome(tmp_path, monkeypatch):
    made: list[memoryview] = []
    view, meanings = Passphrase.view.fget, Passphrase.meanings.fget
    monkeypatch.setattr(
        Passphrase, "meanings", property(lambda self: made.extend(found := meanings(self)) or found)
    )
    monkeypatch.setattr(Passphrase, "view", property(lambda self: made.append(found := view(self)) or found))
    await agent_id(tmp_path / "keys", OLD)
    with pytest.raises(PassphraseError):
        await make(tmp_path / "keys", NEW)
    await change_passphrase(tmp_path / "keys", OLD, NEW, cost=CHEAP)
    assert len(made) == 4
    assert {bytes(found) for found in made} == {bytes(len(OLD))}


async def test_argon2id_runs_in_a_thread_and_one_at_a_time(tmp_path, monkeypatch):
    await agent_id(tmp_path / "keys", OLD)
    loop, running, most, seen = threading.get_ident(), 0, 0, 0
    run = paserk.argon2id_into

    def watched(*arguments: object, **more: object) -> None:
        nonlocal running, most, seen
        assert threading.get_ident() != loop
        running, seen = running + 1, seen + 1
        most = max(most, running)
        run(*arguments, **more)
        running -= 1

    monkeypatch.setattr(paserk, "argon2id_into", watched)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(agent_id, tmp_path / "keys", OLD)
    assert (seen, most) == (5, 1)


def rewritten(change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda file: file.write_text(change(file.read_text()))


def with_cost(cost: Cost) -> Callable[[str], str]:
    def change(line: str) -> str:
        data = bytearray(paserk.urlsafe_b64decode(line.strip()[12:]))
        data[16:32] = paserk._COST.pack(*cost)
        return f"k4.local-pw.{paserk._encode(bytes(data))}\n"

    return change


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (rewritten(lambda line: line.strip()), "has 172 bytes"),
        (rewritten(lambda line: line + "\n"), "has 174 bytes"),
        (rewritten(lambda line: line.strip() + " "), "not one line"),
        (rewritten(lambda line: "k3" + line[2:]), "not one line"),
        (rewritten(lambda line: line[:50] + "!" + line[51:]), "base64url"),
        (rewritten(with_cost(Cost(2**40, 2))), "memory is 1099511627776"),
        (rewritten(with_cost(Cost(2**26, 65))), "time is 65"),
        (rewritten(with_cost(Cost(2**26, 2, 2))), "parallelism is 2"),
        (lambda file: file.chmod(0o644), "chmod 600"),
    ],
)
async def test_a_protected_file_that_is_not_as_it_should_be_is_refused_by_name(tmp_path, broken, reason):
    await agent_id(tmp_path / "keys", OLD)
    broken(tmp_path / "keys" / "root.key")
    with pytest.raises(KeyFileError, match=reason) as refused:
        await make(tmp_path / "keys", OLD)
    assert str(tmp_path / "keys" / "root.key") in refused.value.sentence


# --- changing the passphrase ------------------------------------------------------------------------------------

CHANGES = [(None, NEW), (OLD, NEW), (OLD, None)]


@pytest.mark.parametrize(("old", "new"), CHANGES)
async def test_a_change_keeps_the_root_key(tmp_path, old, new, caplog):
    caplog.set_level("DEBUG")
    before = await agent_id(tmp_path / "keys", old)
    await change_passphrase(tmp_path / "keys", old, new, cost=CHEAP)
    assert await agent_id(tmp_path / "keys", new) == before
    with pytest.raises((AgentLockedError, PassphraseError)):
        await make(tmp_path / "keys", old)
    assert os.listdir(tmp_path / "keys") == ["root.key"]
    assert stat.S_IMODE((tmp_path / "keys" / "root.key").stat().st_mode) == 0o600
    assert "passphrase " in caplog.text
    assert OLD not in caplog.text
    assert NEW not in caplog.text


async def test_two_wrappings_of_one_key_have_nothing_in_common(tmp_path):
    file = tmp_path / "keys" / "root.key"
    await agent_id(tmp_path / "keys", OLD)
    first = paserk.parse(file.read_text().strip())
    await change_passphrase(tmp_path / "keys", OLD, OLD, cost=CHEAP)
    second = paserk.parse(file.read_text().strip())
    assert {first.salt, first.nonce, first.ciphertext, first.tag}.isdisjoint(second)


@pytest.mark.parametrize(
    ("present", "old", "error"),
    [(OLD, None, AgentLockedError), (OLD, "x", PassphraseError), (None, "x", PassphraseError)],
)
async def test_a_refused_change_changes_nothing(tmp_path, present, old, error):
    before = await agent_id(tmp_path / "keys", present)
    with pytest.raises(error):
        await change_passphrase(tmp_path / "keys", old, NEW, cost=CHEAP)
    assert await agent_id(tmp_path / "keys", present) == before


async def test_only_leftovers_of_writers_are_removed(tmp_path):
    await agent_id(tmp_path / "keys", None)
    for name in (".root.key.swp", ".root.key.0123456789abcdef", "root.key.0123456789abcdef"):
        (tmp_path / "keys" / name).touch()
    await agent_id(tmp_path / "keys", None)
    assert sorted(os.listdir(tmp_path / "keys")) == [".root.key.swp", "root.key", "root.key.0123456789abcdef"]


async def test_changing_a_missing_key_file_creates_none(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyFileError, match="agentd init"):
            await change_passphrase(tmp_path / "keys", None, NEW, cost=CHEAP)
        (tmp_path / "keys").mkdir(0o700, exist_ok=True)
    assert os.listdir(tmp_path / "keys") == []


class Crash(BaseException):
    pass


STEPS = ["open", "fchmod", "write", "fsync", "close", "replace", "unlink"]
"""Every system call that changes files, by its name in `os`; `Path.unlink` calls os.unlink."""


class Failing:
    """Counts the steps of a change, and fails before or after one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int | None, fault: str) -> None:
        self.count, self._at, self._fault, self._is_dead = 0, at, fault, False
        monkeypatch.setattr(
            memory, "_secret_view", lambda size: None
        )  # its system calls are not part of the change
        for step in STEPS:
            monkeypatch.setattr(os, step, self._watched(getattr(os, step), step))

    def _watched(self, real: Callable[..., object], step: str) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            if self._is_dead:
                if step == "close":
                    return real(*arguments)  # the kernel closes the descriptors of a dead process
                raise Crash  # a dead process changes nothing
            self.count += 1
            if self.count != self._at:
                return real(*arguments, **more)
            if self._fault == "error":
                if step == "close":
                    real(*arguments)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            if self._fault == "half" and step == "write":
                descriptor, content = arguments
                real(descriptor, content[: len(content) // 2])
            elif self._fault == "after" or step == "close":
                real(*arguments, **more)
            self._is_dead = True
            raise Crash

        return call


async def opens(keys: Path, passphrase: str | None) -> str | None:
    try:
        return await agent_id(keys, passphrase)
    except (AgentLockedError, PassphraseError):
        return None


@pytest.mark.parametrize("fault", ["error", "before", "after", "half"])
@pytest.mark.parametrize(("old", "new"), CHANGES)
async def test_an_interrupted_change_leaves_the_old_or_the_new_passphrase(tmp_path, old, new, fault):
    async def change(keys: Path, at: int | None) -> tuple[str, int]:
        before = await agent_id(keys, old)
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, at, fault)
            with suppress(KeyFileError, Crash):
                await change_passphrase(keys, old, new, cost=CHEAP)
        return before, failing.count

    _, steps = await change(tmp_path / "whole", None)
    assert steps >= 8
    ends = set()
    for at in range(1, steps + 1):
        keys = tmp_path / str(at)
        before, _ = await change(keys, at)
        by_old, by_new = await opens(keys, old), await opens(keys, new)
        assert sorted([by_old or "", by_new or ""]) == ["", before], f"step {at}"
        ends.add(by_new is not None)
        assert os.listdir(keys) == ["root.key"], "what was left behind is removed at the next start"
    assert ends == {False, True}, "it was interrupted before and after the change took effect"
