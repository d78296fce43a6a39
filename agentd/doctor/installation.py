"""The installation that the doctor examines: the facts about it that several checks use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from agentd_client import paths
from agentd_client.blocking import Client
from agentd_client.errors import AgentdError
from agentd_client.file_locks import holder_of
from agentd_client.protocol.results import Status

from ..config import Settings
from ..distribution import Installed, how_installed
from ..keys import PassphraseText, read_only_keys
from ..sessions.records import TIMESTAMPED_FOLDERS
from ..store import OfflineCheck, check_offline
from . import system

ANSWER_SECONDS = 3.0
"""For the status of an agent that runs; it takes a millisecond."""

START_SECONDS = 1.0
"""For an agent that has the socket's lock and does not listen yet."""

SOCKET_UNIT, SERVICE_UNIT = "agentd.socket", "agentd.service"
_ENABLED_LINK = f"sockets.target.wants/{SOCKET_UNIT}"
_SYSTEM_WIDE = ("/etc", "/usr/local/lib", "/usr/lib")


class Answer(NamedTuple):
    """The status of the running agent, or why there is none. Both None: it was not asked."""

    status: Status | None = None
    failure: str | None = None


class StoreFacts(NamedTuple):
    """What is known of the store.

    examined: None if it cannot be read, for the reason in `failure`; both None if there is no store.
    sealed: why its values were not opened.
    """

    examined: OfflineCheck | None = None
    failure: str | None = None
    sealed: AgentdError | None = None


class Installation:
    """The installation that is examined. Each fact about it is read once.

    Args:
        settings: its settings, or the defaults if those cannot be used.
        config_path: of the settings file, which need not exist.
        config_failure: why the settings in the file cannot be used; None if they can.
        passphrase: of the key file, to open the values of the store; None if it has none.
        environ: the environment.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        config_path: str,
        config_failure: str | None,
        passphrase: PassphraseText | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.settings = settings
        self.config_path = config_path
        self.config_failure = config_failure
        self.environ = environ
        self._passphrase = passphrase
        self._store_lock = settings.store_path / "agentd.lock"

    @cached_property
    def locks(self) -> str:
        """The text of /proc/locks: who serves and who has the store are read at one moment."""
        return system.read_proc("locks")

    @cached_property
    def serving(self) -> list[int]:
        """The processes that hold the socket's lock: the agent, if one runs."""
        return system.flock_holders(self.locks, system.node_at(f"{self.settings.socket_path}.lock"))

    @cached_property
    def unit(self) -> str | None:
        """The systemd unit of the agent; empty for none, None if no agent runs or it cannot be known."""
        cgroup = system.read_proc(str(self.serving[0]), "cgroup") if self.serving else ""
        return system.unit_of(cgroup) if cgroup else None

    @cached_property
    def storing(self) -> list[int]:
        """The processes that hold the store's lock."""
        return system.flock_holders(self.locks, system.node_at(self._store_lock))

    @cached_property
    def storing_at(self) -> str:
        """The socket that the agent with the store says it serves; empty if it does not say."""
        holder = holder_of(self._store_lock)
        return "" if holder is None else holder.socket_path

    @cached_property
    def listeners(self) -> int:
        """How many sockets listen at the socket's path, as far as this network namespace shows."""
        return system.listeners(self.settings.socket_path)

    @cached_property
    def is_taken(self) -> bool | None:
        """Whether a socket is bound to the file at the socket's path; None if it cannot be known."""
        return system.is_taken(self.settings.socket_path)

    @cached_property
    def installed(self) -> Installed:
        """How the agentd that examines it was installed."""
        return how_installed()

    @cached_property
    def unit_folders(self) -> list[Path]:
        """Where the user's manager searches for units, in order of precedence (systemd.unit(5))."""
        config_home = Path(paths.config_path(self.environ)).parent.parent
        return [base / "systemd" / "user" for base in (config_home, *map(Path, _SYSTEM_WIDE))]

    @cached_property
    def is_enabled(self) -> bool:
        """Whether the user's manager starts the socket unit by itself."""
        return any(os.path.lexists(folder / _ENABLED_LINK) for folder in self.unit_folders)

    @cached_property
    def answer(self) -> Answer:
        """The agent's answer; it is asked only if one has the socket's lock, so that asking never starts one.

        A listener without the lock may be systemd, which starts an agent for any connection.
        """
        if not self.serving:
            return Answer()
        try:
            path = self.settings.socket_path
            with Client.connect(path, timeout=ANSWER_SECONDS, patience=START_SECONDS) as agent:
                return Answer(agent.get_status())
        except AgentdError as failure:
            return Answer(failure=failure.sentence)

    @cached_property
    def store(self) -> StoreFacts:
        """The store, examined without a lock; its values are opened if there is a key for it."""
        if system.node_at(self.settings.store_path / "data.mdb").kind is None:
            return StoreFacts()
        keys, sealed = None, None
        try:
            with ExitStack() as opened:
                try:
                    keys = opened.enter_context(read_only_keys(self.settings.keys_path, self._passphrase))
                except AgentdError as failure:
                    sealed = failure
                found = check_offline(self.settings.store_path, keys, newest_below=TIMESTAMPED_FOLDERS)
        except OSError as failure:
            return StoreFacts(failure=f"{failure.filename}: {failure.strerror}")
        return StoreFacts(found, sealed=sealed)
