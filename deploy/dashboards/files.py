"""Every file that is generated."""

from pathlib import Path

from deploy.dashboards import grafana, rules


def files() -> dict[Path, str]:
    """Path and text of each."""
    return {**grafana.files(), **rules.files()}
