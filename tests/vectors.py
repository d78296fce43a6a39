"""The official PASETO vectors, from the folder that AGENTD_PASETO_VECTORS names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "AGENTD_PASETO_VECTORS"


def official(name: str) -> list[dict[str, Any]]:
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} does not name the folder of paseto-standard/test-vectors")
    return json.loads((Path(folder) / name).read_text())["tests"]
