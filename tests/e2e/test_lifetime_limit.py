"""`session_max_lifetime` as a person meets it."""

from __future__ import annotations

import json

import pytest

from tests.e2e.daemon import scratch_home, serving


@pytest.fixture
def home():
    with scratch_home() as home:
        (home.path / "config" / "agentd").mkdir(parents=True)
        (home.path / "config" / "agentd" / "config.toml").write_text('session_max_lifetime = "1h"\n')
        yield home


def test_a_maximum_is_a_maximum(home):
    with serving(home):
        made = json.loads(home.agentctl("--json", "login").stdout)
        shown = json.loads(home.agentctl("--json", "inspect").stdout)["session"]
        assert made["expiresAt"] - shown["createdAt"] == pytest.approx(3600)
        for args in (
            ["login", "--expiry", "60d"],
            ["login", "--expiry", "never"],
            ["login", "--max-lifetime", "2h"],
            ["exec", "--ttl", "2h", "--", "echo", "ran"],
        ):
            done = home.agentctl(*args)
            assert done.returncode == 65, done
            assert "exceeds the agent's limit of 1 h (session_max_lifetime)" in done.stderr
            assert "ran" not in done.stdout
        assert home.agentctl("verify").returncode == 0, "the session before goes on"
        assert home.agentctl("login", "--expiry", "1h").returncode == 0
