"""Figures that the documents give in sentences are those of the code; the table of limits is in test_documents.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentd import agent, config, log_limit, logs
from agentd.doctor import installation
from agentd.keys import throttle
from agentd.locking import logind
from agentd.server import outbox, socket_file
from agentd.sessions import journal, rules, verifier
from agentd.store import offline_check
from agentd_client.cli.commands import lock

DOCS = Path(__file__).parent.parent / "docs"
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("document", "sentence", "figures"),
    [
        ("design.md", "cached ({:,} of them)", [verifier.MAX_CACHED_TOKENS]),
        ("design.md", "wiped after {:g} seconds even if", [agent.WIPING_SECONDS]),
        ("design.md", "more than {:.0f} MiB, some half a million", [offline_check.MAX_COPIED_BYTES / MIB]),
        ("operations.md", "of more than {:.0f} MiB", [offline_check.MAX_COPIED_BYTES / MIB]),
        ("operations.md", "Up to {:,} values are all opened", [offline_check.MAX_OPENED]),
        ("operations.md", "for up to `drain_seconds` ({:g} by default)", [config.DEFAULT_DRAIN_SECONDS]),
        ("operations.md", "waits up to {:g} s until the keys are gone", [logind.LOCK_SECONDS]),
        ("operations.md", "waits 1, 2, 4 … {:g} s before", [throttle.MAX_DELAY_SECONDS]),
        ("operations.md", "every process waits up to {:g} s.", [throttle.MAX_PAUSE_SECONDS]),
        ("operations.md", "{:.0f} KiB wait in memory", [logs.MAX_WAITING_CHARACTERS / 1024]),
        ("operations.md", "then one every {:g} seconds", [log_limit.SECONDS_PER_SUBJECT]),
        ("operations.md", "it answers within {:g} s", [installation.ANSWER_SECONDS]),
        ("operations.md", "at most {} bytes; owner", [socket_file.MAX_PATH_BYTES]),
        ("security.md", "opens and ends {:,} sessions, with two entries each", [journal.MAX_ENTRIES // 2]),
        ("protocol.md", "and for {:g} s after that", [rules.OVERLAP_SECONDS]),
        ("protocol.md", "more than {} times in {:g} s", [rules.MAX_OVERLAPS, rules.OVERLAP_SECONDS]),
        ("protocol.md", "1 s, 2 s, 4 s and so on, at most {:g} s.", [throttle.MAX_DELAY_SECONDS]),
        (
            "protocol.md",
            "{:g} s, 1 s, 2 s and so on, at most {:g} s.",
            [throttle.FIRST_PAUSE_SECONDS, throttle.MAX_PAUSE_SECONDS],
        ),
        ("protocol.md", "there is {:g} s to take what is waiting", [outbox.LAST_EVENTS_SECONDS]),
        ("protocol.md", "{:.0f} days unless configured", [config.DEFAULT_MAX_LIFETIME_SECONDS / 86400]),
        ("protocol.md", "{:.0f} hours unless configured", [config.DEFAULT_SESSION_SECONDS / 3600]),
        ("protocol.md", "a client should allow {:g} s. Error", [lock.LOCK_SECONDS]),
        ("../client/man/agentctl.1", ".Cm lock waits up to {:g} seconds", [lock.LOCK_SECONDS]),
    ],
)
def test_a_figure_in_a_sentence_is_that_of_the_code(document, sentence, figures):
    text = " ".join((DOCS / document).read_text().split())
    assert sentence.format(*figures) in text
