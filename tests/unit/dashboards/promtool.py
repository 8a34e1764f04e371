"""Queries and rules asked of promtool, over series that are written down."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus"
)


def complaints(test: Mapping[str, Any], folder: Path) -> str:
    """The words of promtool about a file of unit tests; nothing where all is as expected."""
    file = folder / "test.yaml"
    file.write_text(json.dumps(test))  # JSON is YAML
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr if done.returncode else ""


def given(series: Mapping[str, str]) -> list[dict[str, str]]:
    """The series as promtool reads them."""
    return [{"series": name, "values": values} for name, values in series.items()]
