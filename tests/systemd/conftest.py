from __future__ import annotations

import pytest

from tests.systemd.user_manager import missing, user_manager


@pytest.fixture(scope="session")
def manager():
    """A `systemd --user` whose user has nothing but an empty home."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with user_manager() as manager:
        yield manager


@pytest.fixture(scope="session")
def installed(manager):
    """What `make install` said in the empty home."""
    return manager.make("install")


@pytest.fixture
def service(manager, installed):
    """The units as installed, no agent running and nothing kept."""
    manager.tidy()
    return manager
