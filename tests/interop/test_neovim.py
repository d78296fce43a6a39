"""A foreign client: Neovim's own MessagePack-RPC, through `sockconnect` and `rpcrequest`."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.e2e.daemon import scratch_home, serving

pytestmark = pytest.mark.skipif(
    shutil.which("nvim") is None, reason="Neovim is not installed (apt-get install neovim)"
)

SCRIPT = """
local agent = vim.fn.sockconnect("pipe", vim.env.AGENTD_SOCKET, { rpc = true })
local told = {}
local function tell(name, value) told[name] = value end

tell("hello", vim.rpcrequest(agent, "hello").server)
tell("hello_empty_table", vim.rpcrequest(agent, "hello", {}).protocol)
local created = vim.rpcrequest(agent, "createToken", { expiry = 1800, label = "neovim" })
tell("label", vim.rpcrequest(agent, "inspectToken", { token = created.token }).session.label)
tell("valid", vim.rpcrequest(agent, "verifyToken", { token = created.token }).valid)
tell("revoked", vim.rpcrequest(agent, "revokeToken", { id = created.id }).revoked)
local after = vim.rpcrequest(agent, "verifyToken", { token = created.token })
tell("valid_after", after.valid)
tell("reason_after", after.reason)

local _, unknown = pcall(vim.rpcrequest, agent, "frobnicate", {})
tell("unknown_method", tostring(unknown))
local _, expiry = pcall(vim.rpcrequest, agent, "createToken", { expiry = -1 })
tell("bad_expiry", tostring(expiry))
local _, field = pcall(vim.rpcrequest, agent, "createToken", { expriy = 60 })
tell("unknown_parameter", tostring(field))
local second = vim.rpcrequest(agent, "createToken", {})
vim.rpcrequest(agent, "resetKey")
tell("after_reset", vim.rpcrequest(agent, "verifyToken", { token = second.token }).reason)
tell("subscribed", vim.rpcrequest(agent, "subscribe").subscribed)
vim.rpcrequest(agent, "createToken", {})
vim.wait(50, function() return false end)
tell("goes_on_after_events", vim.rpcrequest(agent, "hello").protocol)
io.stdout:write(vim.fn.json_encode(told))
vim.cmd("qall!")
"""


def test_neovim_creates_verifies_revokes_and_is_refused(tmp_path):
    script = tmp_path / "script.lua"
    script.write_text(SCRIPT)
    with scratch_home() as home, serving(home):
        finished = subprocess.run(
            ["nvim", "--headless", "-u", "NONE", "-i", "NONE", "-n", "-c", f"luafile {script}"],
            env=home.environ | {"AGENTD_SOCKET": str(home.socket)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    told = json.loads(finished.stdout or finished.stderr)
    assert told.pop("hello").startswith("agentd ")
    assert "UNKNOWN_METHOD: " in told["unknown_method"]
    assert "frobnicate" in told.pop("unknown_method")
    assert "INVALID_EXPIRY: " in told.pop("bad_expiry")
    assert "INVALID_PARAMS: " in told["unknown_parameter"]
    assert "expriy" in told.pop("unknown_parameter")
    assert told == {
        "hello_empty_table": 1,
        "label": "neovim",
        "valid": True,
        "revoked": True,
        "valid_after": False,
        "reason_after": "REVOKED",
        "after_reset": "KEY_RESET",
        "subscribed": True,
        "goes_on_after_events": 1,  # it drops the events that it was sent
    }
