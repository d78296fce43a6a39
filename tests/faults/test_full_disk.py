from __future__ import annotations

import pytest

from tests.faults.small_disk import (
    CANNOT_MOUNT,
    KINDS,
    TIMEOUT_SECONDS,
    in_a_namespace_of_its_own,
    why_not,
)


@pytest.mark.timeout(TIMEOUT_SECONDS + 50)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("story", ["store", "agent"])
def test_on_a_full_disk_creating_is_refused_and_ending_works_until_room_returns(
    story: str, kind: str
) -> None:
    if reason := why_not():
        pytest.skip(reason)
    told = in_a_namespace_of_its_own("tests.faults.full_disk", story, kind)
    if told.returncode == CANNOT_MOUNT:
        pytest.skip(f"no {kind} can be mounted here: {told.stdout}")
    print(told.stdout)
    assert told.returncode == 0, told.stdout + told.stderr
