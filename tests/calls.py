"""The calls that a client makes, as values: its own methods, which send nothing here and return the call."""

from __future__ import annotations

from typing import Any

from agentd_client import Client
from agentd_client.protocol.methods import Call


class _Calls(Client):
    def _carry_out(self, call: Call[Any], seconds: float | None = None) -> Any:
        return call


calls: Any = _Calls("/nowhere", timeout=0, patience=None)
