"""Every file that is generated."""

from pathlib import Path

from deploy.observe import grafana


def files() -> dict[Path, str]:
    """Path and text of each."""
    return grafana.files()
