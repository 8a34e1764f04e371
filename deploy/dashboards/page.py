"""A dashboard: its panels in their places, its variables and its links."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deploy.dashboards.panels import PROMETHEUS, Panel, Row

COLUMNS = 24

WRITTEN = "Written by `make dashboards` from deploy/dashboards/boards: change it there."
"""End of a dashboard's description, for whoever opens its JSON first."""


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard: the values of a metric's label."""

    name: str
    title: str
    metric: str
    label: str

    @property
    def query(self) -> str:
        return f"label_values({self.metric}, {self.label})"

    def json(self) -> dict[str, Any]:
        return {
            "type": "query",
            "name": self.name,
            "label": self.title,
            "datasource": PROMETHEUS,
            "query": {"query": self.query, "refId": "variable"},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".+",  # Loki refuses a selector that may be empty
            "current": {"text": ["All"], "value": ["$__all"]},
        }


@dataclass(frozen=True)
class Dashboard:
    """A page of panels, laid out from left to right, a new line where one is full."""

    uid: str
    title: str
    about: str
    panels: Sequence[Panel | Row]
    variables: Sequence[Variable] = ()
    spans: Literal["now-1h", "now-6h", "now-24h", "now-7d"] = "now-1h"

    def json(self) -> dict[str, Any]:
        return {
            "uid": self.uid,
            "title": self.title,
            "description": f"{self.about} {WRITTEN}",
            "tags": ["o11y-4-ai"],
            "schemaVersion": 41,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "timezone": "browser",
            "time": {"from": self.spans, "to": "now"},
            "templating": {"list": [variable.json() for variable in self.variables]},
            "annotations": {"list": [ALERTS]},
            "links": [OTHERS],
            "panels": self._placed(),
        }

    def _placed(self) -> list[dict[str, Any]]:
        placed: list[dict[str, Any]] = []
        x = y = deepest = 0
        for number, panel in enumerate(self.panels, 1):
            width = COLUMNS if isinstance(panel, Row) else panel.width
            height = 1 if isinstance(panel, Row) else panel.height
            if x + width > COLUMNS:
                x, y, deepest = 0, y + deepest, 0
            if isinstance(panel, Row):
                place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
                placed.append(
                    {
                        "id": number,
                        "type": "row",
                        "title": panel.title,
                        "gridPos": place,
                        "collapsed": False,
                        "panels": [],
                    }
                )
            else:
                placed.append(panel.json(number, x, y))
            x, deepest = x + width, max(deepest, height)
        return placed


ALERTS = {
    "name": "Alerts",
    "datasource": PROMETHEUS,
    "enable": True,
    "iconColor": "red",
    "expr": 'ALERTS{alertstate="firing"}',
    "titleFormat": "{{alertname}}",
    "textFormat": "{{severity}}",
}
OTHERS = {
    "type": "dashboards",
    "title": "Dashboards",
    "tags": ["o11y-4-ai"],
    "icon": "external link",
    "tooltip": "",
    "targetBlank": False,
    "asDropdown": False,
    "keepTime": True,
    "includeVars": True,
}
