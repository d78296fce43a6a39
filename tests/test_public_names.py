from __future__ import annotations

import agentd_client
from agentd_client import errors


def test_every_public_error_can_be_imported_from_the_client():
    assert {error.__name__ for error in errors.ERRORS.values()} <= set(agentd_client.__all__)
    declared = {name for name, value in vars(errors).items() if isinstance(value, type) and name[0] != "_"}
    assert declared == {error.__name__ for error in errors.ERRORS.values()} | {"LocalParamsError"}
    for name in agentd_client.__all__:
        assert hasattr(agentd_client, name)
