"""What pyproject.toml cannot say of a build: the client of the same version, and agentd-protocol(7)."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

PROTOCOL = "agentd-protocol.7"


class PinnedClient(MetadataHookInterface):
    """Adds agentd-client of agentd-daemon's own version to the dependencies that pyproject.toml lists."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `dependencies`; Hatch calls it once the version has been read."""
        metadata["dependencies"] = [f"agentd-client=={metadata['version']}", *self.config["dependencies"]]


class ProtocolPage(BuildHookInterface[Any]):
    """Adds agentd-protocol(7), which is docs/protocol.md, to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the page before the wheel is put together."""
        self._folder = tempfile.mkdtemp()
        page = Path(self._folder, PROTOCOL)
        markdown = Path(self.root, "docs", "protocol.md").read_text(encoding="utf-8")
        page.write_text(manual_page(markdown, self.metadata.version), encoding="utf-8")
        build_data["shared_data"][str(page)] = f"share/man/man7/{PROTOCOL}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove it again: it is in the wheel."""
        shutil.rmtree(self._folder)


def manual_page(markdown: str, version: str) -> str:
    """agentd-protocol(7), in the macros of man(7)."""
    # Only the wheel's build requires them.
    from docutils.core import publish_string
    from myst_parser.docutils_ import Parser

    # Links into this and other documents lead nowhere from a manual page; their words stay.
    text = re.sub(r"\[([^]]+)\]\((?!https?:)[^)]*\)", r"\1", markdown)
    made = publish_string(
        text,
        parser=Parser(),
        writer="manpage",
        settings_overrides={"output_encoding": "unicode", "report_level": 3, "halt_level": 3},
    )
    head = (
        f'.TH agentd-protocol 7 "" "agentd {version}"\n'
        ".SH NAME\nagentd-protocol \\- how programs talk to agentd\n.SH DESCRIPTION\n"
    )
    page, replaced = re.subn(r"^\.TH .*\n\.SH .*\n.*\n", lambda _: head, made, flags=re.M)
    if replaced != 1:
        raise ValueError("docutils begins a manual page in another way than is replaced here")
    return page
