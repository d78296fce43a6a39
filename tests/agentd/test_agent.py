"""Locking and unlocking, with a real key file, store and manager."""

from __future__ import annotations

import errno
import fcntl
import itertools
import logging
import math
import os
import stat
from functools import partial

import pytest
import trio
import trio.testing

from agentd.agent import Agent
from agentd.config import load
from agentd.keys import Cost, KeyRing, throttle
from agentd.keys.argon2 import MIN_MEMORY_BYTES, MIN_PASSES
from agentd.locking import LockMark
from agentd.locking.logind import LOCK_SECONDS
from agentd.main import running_core
from agentd.sessions import Subscribers
from agentd.sessions.records import ACTIONS_PATH, AuditRecord
from agentd_client.errors import (
    AgentLockedError,
    KeyFileError,
    NoPassphraseError,
    PassphraseError,
)
from agentd_client.lifecycle import State
from agentd_client.protocol.results import PeerIdentity
from tests.clocks import ManualClock
from tests.disk import hold_commits
from tests.locking.cancelling import cancelled_at

LOGGER = logging.getLogger("agentd.test")
CHEAP = Cost(MIN_MEMORY_BYTES, MIN_PASSES)
PASSPHRASE, OTHER = b"correct horse", b"battery staple"
ME, STRANGER = PeerIdentity(1000, 42), PeerIdentity(1000, 43)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    """Argon2id runs in a thread, in real time; how attempts wait is tested where the clock is the test's."""
    monkeypatch.setattr(throttle, "MAX_PAUSE_SECONDS", 0)


class Machine:
    """What an agent is started on, again and again."""

    def __init__(self, folder) -> None:
        self.settings = load(socket_path=str(folder / "s"), state_path=str(folder / "state"))
        self.clock = ManualClock()
        self.boot_id = "01a20aa3-48b8-41ca-8b42-bce14e5f57c4"
        self.events: list[tuple[str, str | None]] = []
        self.unlocked = 0

    async def protect(self) -> None:
        async with await KeyRing.create_key_ring(
            keys_path=self.settings.keys_path, passphrase=PASSPHRASE, cost=CHEAP
        ):
            pass

    def agent(self) -> Agent:
        subscribers = Subscribers(LOGGER)
        subscribers.subscribe(lambda event: self.events.append((event.kind, event.reason)))

        def on_unlock() -> None:
            self.unlocked += 1

        return Agent(
            partial(running_core, self.settings, LOGGER, self.clock, subscribers=subscribers),
            keys_path=self.settings.keys_path,
            mark=LockMark(self.settings.lock_mark_path, self.boot_id),
            subscribers=subscribers,
            clock=self.clock,
            logger=LOGGER,
            on_unlock=on_unlock,
            cost=CHEAP,
        )


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
async def agent(machine, nursery):
    """Unlocked, with a passphrase."""
    await machine.protect()
    agent = machine.agent()
    await agent.start(PASSPHRASE)
    await nursery.start(agent.run)
    yield agent
    await agent.stop()


async def opened(agent: Agent) -> str:
    return (await agent.manager.open_session(None, "desk")).token


async def audited(agent: Agent) -> list[tuple[str, str | None, int]]:
    return [(entry.kind, entry.reason, entry.times) for entry in (await agent.manager.list_audit()).entries]


async def test_locked_it_refuses_and_unlocked_it_knows_the_sessions_again(agent, machine):
    token = await opened(agent)
    await agent.lock(by=ME)
    assert (agent.core, agent.lock_reason, agent.locked_at) == (None, "asked", machine.clock.wall)
    with pytest.raises(AgentLockedError):
        agent.manager.verify_nowait(token)
    await agent.unlock(PASSPHRASE, ME)
    assert (agent.lock_reason, agent.locked_at) == (None, None)
    found = agent.manager.verify_nowait(token)
    assert found is not None
    assert found.valid
    assert machine.unlocked == 1
    assert machine.events == [("created", None), ("locked", "asked"), ("unlocked", None)]
    assert await audited(agent) == [("unlocked", None, 1), ("locked", "asked", 1), ("created", None, 1)]


async def test_commits_are_counted_across_a_lock(agent):
    await opened(agent)
    before = agent.commits
    await agent.lock(by=ME)
    while_locked = agent.commits
    assert while_locked > before, "the lock's own entry of the audit log"
    await agent.unlock(PASSPHRASE, ME)
    assert agent.commits > while_locked


async def test_without_a_passphrase_it_is_not_locked(machine):
    agent = machine.agent()
    await agent.start(None)
    with pytest.raises(NoPassphraseError, match="agentctl passwd"):
        await agent.lock(by=ME)
    assert agent.core is not None
    await agent.stop()


async def test_locking_twice_and_unlocking_twice_is_once(agent, machine):
    for _ in range(2):
        await agent.lock("idle")
    await agent.lock(by=ME)
    assert agent.lock_reason == "idle"
    for _ in range(2):
        await agent.unlock(PASSPHRASE, ME)
    await agent.unlock(b"of no importance", ME)
    assert machine.events == [("locked", "idle"), ("unlocked", None)]


async def test_wrong_passphrases_leave_it_locked_and_are_counted_in_the_audit_log_once_it_can_be_written(
    agent,
):
    await agent.lock(by=ME)
    for pid in range(50, 53):  # each is wrong for the first time, and has not to wait
        with pytest.raises(PassphraseError):
            await agent.unlock(OTHER, PeerIdentity(1000, pid))
    assert agent.core is None
    await agent.unlock(PASSPHRASE, ME)
    assert agent.wrong_passphrases == 3
    assert (await audited(agent))[0] == ("passphraseRefused", None, 3)
    await agent.lock(by=ME)
    await agent.unlock(PASSPHRASE, ME)
    assert [kind for kind, _, _ in await audited(agent)].count("passphraseRefused") == 1


async def test_locked_on_purpose_it_stays_locked_in_the_same_boot(agent, machine):
    await agent.lock(by=ME)
    await agent.stop()
    again = machine.agent()
    await again.start(PASSPHRASE)
    assert (again.core, again.lock_reason) == (None, "start")
    await again.unlock(PASSPHRASE, ME)
    await again.stop()
    third = machine.agent()
    await third.start(PASSPHRASE)
    assert third.core is not None
    await third.lock("suspend")
    machine.boot_id = "11a20aa3-48b8-41ca-8b42-bce14e5f57c4"
    fourth = machine.agent()
    await fourth.start(PASSPHRASE)
    assert fourth.core is not None
    await fourth.stop()


@pytest.mark.parametrize(("passphrase", "locked"), [(None, False), (OTHER, False), (PASSPHRASE, True)])
async def test_it_starts_locked_without_the_right_passphrase(machine, passphrase, locked):
    await machine.protect()
    agent = machine.agent()
    await agent.start(passphrase, locked=locked)
    assert (agent.core, agent.lock_reason, bool(agent.passphrase_state)) == (None, "start", True)
    assert not machine.settings.lock_mark_path.exists(), "nobody locked it on purpose"
    await agent.unlock(PASSPHRASE, ME)
    assert agent.core is not None
    await agent.stop()


async def test_a_first_start_with_a_passphrase_makes_a_key_file_that_has_it(machine):
    agent = machine.agent()
    await agent.start(PASSPHRASE)
    assert agent.passphrase_state
    await agent.lock(by=ME)
    await agent.unlock(PASSPHRASE, ME)
    await agent.stop()


async def test_start_locked_also_applies_to_the_first_start(machine):
    agent = machine.agent()
    await agent.start(PASSPHRASE, locked=True)
    assert (agent.core, agent.lock_reason) == (None, "start")
    with pytest.raises(AgentLockedError):
        await agent.manager.open_session()
    await agent.unlock(PASSPHRASE, ME)
    await agent.stop()


async def test_an_unneeded_passphrase_fails_the_start(machine):
    async with await KeyRing.create_key_ring(keys_path=machine.settings.keys_path):
        pass
    with pytest.raises(PassphraseError, match="has no passphrase"):
        await machine.agent().start(PASSPHRASE)


async def test_another_passphrase_locks_out_the_one_before_and_keeps_the_sessions(agent, machine):
    token = await opened(agent)
    assert await agent.change_passphrase(PASSPHRASE, OTHER, ME)
    await agent.lock(by=ME)
    with pytest.raises(PassphraseError):
        await agent.unlock(PASSPHRASE, STRANGER)
    await agent.unlock(OTHER, ME)
    found = agent.manager.verify_nowait(token)
    assert found is not None
    assert found.valid
    assert ("passphraseChanged", None) in machine.events


async def test_a_passphrase_can_be_taken_away_and_set_for_the_first_time(agent):
    assert not await agent.change_passphrase(PASSPHRASE, None, ME)
    with pytest.raises(NoPassphraseError):
        await agent.lock(by=ME)
    assert await agent.change_passphrase(None, OTHER, ME)
    await agent.lock(by=ME)
    await agent.unlock(OTHER, ME)


async def test_changes_that_are_none_are_refused_before_they_wait(agent):
    with pytest.raises(PassphraseError, match="give the present one too"):
        await agent.change_passphrase(None, OTHER, ME)
    with pytest.raises(PassphraseError, match="empty"):
        await agent.change_passphrase(PASSPHRASE, b"", ME)
    assert agent.wrong_passphrases == 0
    await agent.lock(by=ME)
    with pytest.raises(AgentLockedError, match="while the agent is unlocked"):
        await agent.change_passphrase(PASSPHRASE, None, ME)
    assert await agent.change_passphrase(PASSPHRASE, OTHER, ME), "another one can be set all the same"
    await agent.unlock(OTHER, ME)


async def test_a_folder_that_another_keeps_locked_holds_up_no_lock_of_the_agent(agent, machine, monkeypatch):
    monkeypatch.setattr("agentd.keys.key_file.LOCK_SECONDS", 0.0)
    folder = os.open(machine.settings.keys_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(KeyFileError, match="another process holds the lock"):
            await agent.change_passphrase(PASSPHRASE, OTHER, ME)
        await agent.lock(by=ME)
        assert agent.core is None
    finally:
        os.close(folder)
    await agent.unlock(PASSPHRASE, ME)


async def test_the_lock_triggers_run_while_there_is_a_passphrase(agent, nursery):
    runs = []

    async def watch() -> None:
        runs.append("began")
        try:
            await trio.sleep_forever()
        finally:
            runs.append("ended")

    nursery.start_soon(agent.passphrase_state.run_while_set, watch)
    await trio.testing.wait_all_tasks_blocked()
    assert runs == ["began"]
    await agent.change_passphrase(PASSPHRASE, None, ME)
    await trio.testing.wait_all_tasks_blocked()
    assert runs == ["began", "ended"]
    await agent.change_passphrase(None, PASSPHRASE, ME)
    await trio.testing.wait_all_tasks_blocked()
    assert runs == ["began", "ended", "began"]


async def test_a_lock_while_it_is_being_unlocked_comes_after(agent):
    await agent.lock(by=ME)
    async with trio.open_nursery() as both:
        both.start_soon(agent.unlock, PASSPHRASE, ME)
        await trio.testing.wait_all_tasks_blocked()
        await agent.lock("suspend")
    assert (agent.core, agent.lock_reason) == (None, "suspend")


async def test_a_lock_completes_after_its_caller_has_gone(agent):
    with trio.CancelScope() as scope:
        scope.cancel()
        await agent.lock(by=ME)
    assert agent.core is None


async def test_a_call_that_waits_for_the_disk_is_answered_or_refused_as_locked(agent):
    outcomes = []

    async def create(number: int) -> None:
        try:
            outcomes.append(await opened(agent))
        except AgentLockedError:
            outcomes.append(None)

    async with trio.open_nursery() as creating:
        for number in range(64):
            creating.start_soon(create, number)
        await trio.lowlevel.checkpoint()
        await agent.lock(by=ME)
    assert len(outcomes) == 64
    await agent.unlock(PASSPHRASE, ME)
    for token in filter(None, outcomes):
        found = agent.manager.verify_nowait(token)
        assert found is not None
        assert found.valid, "what was answered is on the disk"


async def test_a_key_file_that_vanished_leaves_it_locked_and_says_so(agent, machine):
    await agent.lock(by=ME)
    (machine.settings.keys_path / "root.key").unlink()
    with pytest.raises(KeyFileError):
        await agent.unlock(PASSPHRASE, ME)
    assert agent.core is None


async def test_it_locks_even_if_its_mark_cannot_be_written(agent, machine, caplog):
    machine.settings.lock_mark_path.mkdir()
    caplog.set_level(logging.INFO, logger="agentd")
    await agent.lock(by=ME)
    assert agent.core is None
    assert "a restart may unlock it" in caplog.text


def is_valid(agent: Agent, token: str) -> bool:
    found = agent.manager.verify_nowait(token)
    return found is not None and found.valid


async def test_an_unlock_cancelled_at_any_checkpoint_leaves_it_locked_or_unlocked(agent):
    token = await opened(agent)
    for step in itertools.count(1):
        await agent.lock(by=ME)
        was_cancelled = await cancelled_at(step, partial(agent.unlock, PASSPHRASE, ME))
        if agent.core is None:
            assert agent.locked_at is not None
            with pytest.raises(AgentLockedError):
                agent.manager.verify_nowait(token)
            await agent.unlock(PASSPHRASE, ME)
        assert agent.locked_at is None
        assert is_valid(agent, token)
        if not was_cancelled:
            break
    assert step > 5


async def test_a_lock_that_waits_while_the_passphrase_is_taken_away_is_refused(agent):
    """Locked without a passphrase, nothing would unlock it but a restart."""
    refused = []

    async def lock() -> None:
        with pytest.raises(NoPassphraseError) as caught:
            await agent.lock("suspend")
        refused.append(caught.value)

    async with trio.open_nursery() as both:
        both.start_soon(agent.change_passphrase, PASSPHRASE, None, ME)
        await trio.testing.wait_all_tasks_blocked()
        both.start_soon(lock)
    assert refused
    assert agent.core is not None


async def test_a_passphrase_is_not_taken_away_from_an_agent_that_was_locked_while_that_waited(agent):
    async def change() -> None:
        with pytest.raises(AgentLockedError, match="while the agent is unlocked"):
            await agent.change_passphrase(PASSPHRASE, None, STRANGER)

    async with trio.open_nursery() as three:
        three.start_soon(agent.change_passphrase, PASSPHRASE, PASSPHRASE, ME)
        await trio.testing.wait_all_tasks_blocked()
        three.start_soon(change)
        await trio.testing.wait_all_tasks_blocked()
        await agent.lock(by=ME)
    await agent.unlock(PASSPHRASE, ME)


async def test_the_second_of_two_first_passphrases_is_refused(machine):
    agent = machine.agent()
    await agent.start(None)

    async def change() -> None:
        with pytest.raises(PassphraseError, match="give the present one too"):
            await agent.change_passphrase(None, OTHER, STRANGER)

    async with trio.open_nursery() as both:
        both.start_soon(agent.change_passphrase, None, PASSPHRASE, ME)
        await trio.testing.wait_all_tasks_blocked()
        both.start_soon(change)
    await agent.lock(by=ME)
    await agent.unlock(PASSPHRASE, ME)
    await agent.stop()


async def test_a_change_whose_folder_cannot_be_synced_is_known_all_the_same(agent, monkeypatch):
    """The file is renamed already: what the agent takes for true must be what the file says."""

    def fails(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")

    for old, new in ((PASSPHRASE, None), (None, OTHER)):
        with monkeypatch.context() as broken:
            broken.setattr("agentd.keys.key_file.os.fsync", fails)
            with pytest.raises(KeyFileError):
                await agent.change_passphrase(old, new, ME)
        assert bool(agent.passphrase_state) == (new is not None)
    await agent.lock(by=ME)
    await agent.unlock(OTHER, ME)


async def test_an_unlock_that_waits_for_its_turn_does_not_undo_a_lock_that_came_after_it(agent):
    """Otherwise a machine would go to sleep with the keys that were just wiped."""
    await agent.lock(by=ME)
    sentences = []

    async def wait_and_unlock() -> None:
        with pytest.raises(AgentLockedError) as refused:
            await agent.unlock(PASSPHRASE, STRANGER)
        sentences.append(refused.value.sentence)

    async with trio.open_nursery() as three:
        three.start_soon(agent.unlock, PASSPHRASE, ME)
        await trio.testing.wait_all_tasks_blocked()
        three.start_soon(wait_and_unlock)
        await trio.testing.wait_all_tasks_blocked()
        await agent.lock("suspend")
    assert (agent.core, agent.lock_reason) == (None, "suspend")
    assert sentences == ["the agent was locked while this waited; unlock it again"]
    assert agent.wrong_passphrases == 0
    await agent.unlock(PASSPHRASE, STRANGER)


async def test_an_agent_that_started_locked_and_is_locked_on_purpose_stays_so_over_a_restart(machine):
    await machine.protect()
    agent = machine.agent()
    await agent.start(OTHER)
    await agent.lock(by=ME)
    assert (agent.lock_reason, machine.events) == ("start", []), "there is nothing to tell"
    again = machine.agent()
    await again.start(PASSPHRASE)
    assert again.core is None


async def test_a_mark_that_could_not_be_written_is_written_at_the_next_lock(agent, machine):
    machine.settings.lock_mark_path.mkdir()
    await agent.lock(by=ME)
    machine.settings.lock_mark_path.rmdir()
    await agent.lock(by=ME)
    assert LockMark(machine.settings.lock_mark_path, machine.boot_id).is_set()


async def test_wrong_passphrases_of_changes_are_in_the_audit_log_when_it_is_locked_or_stopped(agent, machine):
    for pid in (50, 51):
        with pytest.raises(PassphraseError):
            await agent.change_passphrase(OTHER, OTHER, PeerIdentity(1000, pid))
    await agent.lock(by=ME)
    await agent.unlock(PASSPHRASE, ME)
    assert ("passphraseRefused", None, 2) in await audited(agent)
    with pytest.raises(PassphraseError):
        await agent.change_passphrase(OTHER, OTHER, STRANGER)
    await agent.stop()
    again = machine.agent()
    await again.start(PASSPHRASE)
    assert [entry for entry in await audited(again) if entry[0] == "passphraseRefused"] == [
        ("passphraseRefused", None, 1),
        ("passphraseRefused", None, 2),
    ]
    await again.stop()


async def test_a_wrong_passphrase_of_a_change_makes_the_next_attempts_of_its_process_wait(agent, monkeypatch):
    monkeypatch.setattr(throttle, "delay_seconds", lambda wrong: math.inf if wrong else 0.0)
    with pytest.raises(PassphraseError):
        await agent.change_passphrase(OTHER, OTHER, STRANGER)
    await agent.lock(by=ME)
    async with trio.open_nursery() as waiting:
        waiting.start_soon(agent.unlock, PASSPHRASE, STRANGER)
        waiting.start_soon(agent.change_passphrase, PASSPHRASE, OTHER, STRANGER)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            assert agent.core is None
            await agent.unlock(PASSPHRASE, ME)  # which is the passphrase still
            await agent.lock(by=ME)
        waiting.cancel_scope.cancel()


async def test_presence_is_proven_by_the_passphrase_and_unlocks_nothing(agent):
    await agent.lock(by=ME)
    await agent.prove_presence(PASSPHRASE, ME)
    assert agent.core is None
    with pytest.raises(PassphraseError):
        await agent.prove_presence(OTHER, ME)
    assert agent.wrong_passphrases == 1


async def test_a_wrong_passphrase_of_an_approval_counts_as_a_wrong_one(agent, monkeypatch):
    monkeypatch.setattr(throttle, "delay_seconds", lambda wrong: math.inf if wrong else 0.0)
    with pytest.raises(PassphraseError):
        await agent.prove_presence(OTHER, STRANGER)
    async with trio.open_nursery() as waiting:
        waiting.start_soon(agent.prove_presence, PASSPHRASE, STRANGER)
        await trio.testing.wait_all_tasks_blocked()
        await agent.prove_presence(PASSPHRASE, ME)  # another process is not kept out
        waiting.cancel_scope.cancel()


async def test_a_passphrase_that_any_program_may_have_set_proves_nobodys_presence(agent, machine):
    assert agent.can_prove_presence
    await agent.change_passphrase(PASSPHRASE, OTHER, ME)
    await agent.prove_presence(OTHER, ME)
    await agent.change_passphrase(OTHER, None, ME)
    await agent.change_passphrase(None, PASSPHRASE, STRANGER)
    await agent.lock(by=STRANGER)
    await agent.unlock(PASSPHRASE, STRANGER)
    with pytest.raises(NoPassphraseError, match="restarted"):
        await agent.prove_presence(PASSPHRASE, STRANGER)
    assert agent.wrong_passphrases == 0
    await agent.stop()
    again = machine.agent()
    await again.start(PASSPHRASE)
    await again.prove_presence(PASSPHRASE, ME)
    await again.stop()


async def test_a_passphrase_changed_while_it_was_locked_is_in_the_audit_log_once_it_is_unlocked(agent):
    await agent.lock(by=ME)
    await agent.change_passphrase(PASSPHRASE, OTHER, STRANGER)
    for _ in range(2):  # the second time there is nothing left to write
        await agent.unlock(OTHER, ME)
        page = (await agent.manager.list_audit()).entries
        await agent.lock(by=ME)
    assert [entry.peer_pid for entry in page if entry.kind == "passphraseChanged"] == [STRANGER.pid]
    assert [entry.kind for entry in page].count("passphraseChanged") == 1


async def test_a_change_is_published_though_its_caller_was_cancelled(agent, machine):
    key_file = machine.settings.keys_path / "root.key"

    async def published() -> tuple[int, int]:
        audit = [kind for kind, _, _ in await audited(agent)]
        return audit.count("passphraseChanged"), machine.events.count(("passphraseChanged", None))

    changes = 0
    for step in itertools.count(1):
        before = key_file.read_bytes()
        change = partial(agent.change_passphrase, PASSPHRASE, PASSPHRASE, ME)
        was_cancelled = await cancelled_at(step, change)
        changes += key_file.read_bytes() != before
        assert await published() == (changes, changes), step
        if not was_cancelled:
            break
    assert changes > 1


async def test_an_idle_time_that_ends_while_it_is_being_unlocked_does_not_lock_it_again(agent):
    await agent.lock("screen lock")
    async with trio.open_nursery() as both:
        both.start_soon(agent.unlock, PASSPHRASE, ME)
        await trio.testing.wait_all_tasks_blocked()
        await agent.lock("idle")
    assert agent.core is not None


async def test_unlocking_is_a_use_from_the_moment_it_can_be_used(agent, monkeypatch):
    """Not after what is then written to the disk: an idle time that ends meanwhile would lock it again."""
    newest = []

    def on_unlock() -> None:
        ((_, stored),) = agent.core.db.iterate(ACTIONS_PATH, reverse=True, limit=1)
        newest.append(AuditRecord.decode(stored).kind)

    monkeypatch.setattr(agent, "_on_unlock", on_unlock)
    await agent.lock(by=ME)
    await agent.unlock(PASSPHRASE, ME)
    assert newest == ["locked"]


async def test_a_disk_that_hangs_does_not_keep_the_keys_in_memory(autojump_clock, machine):
    await machine.protect()
    agent = machine.agent()
    await agent.start(PASSPHRASE)
    assert agent.core is not None
    key_ring, disk, answered = agent.core.key_ring, await hold_commits(agent.core.db), trio.Event()

    async def lock() -> None:
        await agent.lock("suspend")
        answered.set()

    async with trio.open_nursery() as locking:
        try:
            locking.start_soon(lock)
            await trio.sleep(0.1)
            assert agent.core is None, "it is locked as soon as it refuses"
            with pytest.raises(AgentLockedError):
                agent.manager.verify_nowait("")
            await trio.sleep(LOCK_SECONDS)
            assert (key_ring.state, answered.is_set()) == (State.STOPPED, False)
        finally:
            disk.set()
    await agent.unlock(PASSPHRASE, ME)
    await agent.stop()
