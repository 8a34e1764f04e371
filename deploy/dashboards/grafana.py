"""The dashboards as the files Grafana is provisioned with."""

import json
from pathlib import Path

from deploy.dashboards.boards import cost, inference, pipeline, retrieval, slo, spending, telemetry

FOLDER = Path(__file__).parents[1] / "grafana" / "dashboards"
DASHBOARDS = tuple(
    module.DASHBOARD for module in (pipeline, cost, spending, inference, retrieval, slo, telemetry)
)


def files() -> dict[Path, str]:
    """Path and text of each."""
    return {
        FOLDER / f"{dashboard.uid.removeprefix('o11y-')}.json": json.dumps(
            dashboard.json(), indent=2, ensure_ascii=False
        )
        + "\n"
        for dashboard in DASHBOARDS
    }
