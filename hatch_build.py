"""Adds agentd-client of agentd's own version to the dependencies that pyproject.toml lists."""

from __future__ import annotations

from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class PinnedClient(MetadataHookInterface):
    """Hatch calls it once the version has been read."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `dependencies`."""
        metadata["dependencies"] = [f"agentd-client=={metadata['version']}", *self.config["dependencies"]]
