"""agentd: the local session agent, as a daemon and as a core to embed.

The public parts are imported from where they live: `agentd.keys.KeyRing`, `agentd.store.DB`,
`agentd.sessions.SessionManager`.
"""

from __future__ import annotations

from agentd_client import __version__

__all__ = ["__version__"]
