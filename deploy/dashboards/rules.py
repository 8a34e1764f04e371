"""Recording and alerting rules as the files Prometheus reads."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from deploy.dashboards import alerts, slo

FOLDER = Path(__file__).parents[1] / "prometheus" / "rules"
HEAD = "# Written by `make dashboards` from deploy/dashboards.\n"


def files() -> dict[Path, str]:
    """Path and text of each."""
    return {
        FOLDER / "slo.yaml": _text(slo.recorded()),
        FOLDER / "alerts.yaml": _text(alerts.groups()),
    }


def _text(groups: Iterable[dict[str, Any]]) -> str:
    return HEAD + yaml.safe_dump({"groups": list(groups)}, sort_keys=False, width=100)
