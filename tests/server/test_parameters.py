"""No request names a path, a module or a command for the agent to open: these are all the names there are."""

from __future__ import annotations

from collections.abc import Iterator

from agentd import methods
from agentd.server import Params

KNOWN = {
    *("client", "protocol"),  # text that is looked at by nobody
    *("token", "id", "parent", "after"),  # looked up in the store, or opened with the session key
    *("label", "state", "pid", "since", "limit", "kind", "session"),  # compared with what is stored
    *("expiry", "max_lifetime", "max_uses", "grace_seconds", "bound", "audience", "scopes"),
    *("passphrase", "old", "new"),
    *("reason", "decision", "remember", "wait"),  # shown to a person; a word, and numbers of seconds
}


def kinds(kind: type[Params] = Params) -> Iterator[type[Params]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from kinds(narrower)


def test_no_request_names_anything_for_the_agent_to_open():
    assert methods
    ours = [kind for kind in kinds() if kind.__module__.startswith("agentd.")]
    assert {name for kind in ours for name in kind.__struct_fields__} == KNOWN
