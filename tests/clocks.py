"""A clock that stands still until a test moves it."""

from __future__ import annotations

from agentd.sessions import Instant


class ManualClock:
    def __init__(self, wall: float = 1_750_000_000.0, boot: float = 1_000.0, boot_id: str = "boot-1") -> None:
        self.wall, self.boot, self.boot_id = wall, boot, boot_id

    def read(self) -> Instant:
        return Instant(self.wall, self.boot, self.boot_id)

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds

    def set_wall(self, wall: float) -> None:
        self.wall = wall

    def reboot(self) -> None:
        self.boot, self.boot_id = 5.0, self.boot_id + "'"
