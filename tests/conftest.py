"""What every test of every folder needs."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.signals import as_in_a_foreground_job

as_in_a_foreground_job()

# What the make(1) that runs the tests tells those below it: a test that runs make is not one of them.
for variable in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(variable, None)

# No test depends on how busy the machine is.
settings.register_profile("agentd", deadline=None)
settings.load_profile("agentd")

# What these say of themselves is in pyproject.toml.
WHOLE_FOLDERS = {"faults": pytest.mark.slow, "packaging": pytest.mark.slow, "systemd": pytest.mark.serial}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in WHOLE_FOLDERS:
            item.add_marker(WHOLE_FOLDERS[folder])
    # What takes long begins early, so that no process is left alone with it at the end.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def open_descriptors():
    def read() -> set[str]:
        gc.collect()  # else what earlier tests left behind may be closed between two readings
        # The listing includes the descriptor that it was read from, which is closed again.
        listed = {number: Path(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
        return {f"{number} {os.readlink(path)}" for number, path in listed.items() if os.path.lexists(path)}

    return read
