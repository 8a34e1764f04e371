"""Panels of Grafana dashboards: what each shows, with its unit, its words and its queries."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
TEMPO = {"type": "tempo", "uid": "tempo"}
LOKI = {"type": "loki", "uid": "loki"}

Thresholds = Sequence[tuple[float, str]]
"""From which value on a panel has which colour; green below the first."""

Target = dict[str, Any]

WITHOUT_TIME = {
    "matcher": {"id": "byName", "options": "Time"},
    "properties": [{"id": "custom.hidden", "value": True}],
}


@dataclass(frozen=True)
class Panel:
    """One panel; `width` of 24 columns, `height` in rows of Grafana's grid."""

    title: str
    about: str
    kind: str
    unit: str
    targets: Sequence[Target] = ()
    width: int = 8
    height: int = 8
    thresholds: Thresholds = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    custom: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[Mapping[str, Any]] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    """`min` and `max` of the scale."""
    transformations: Sequence[Mapping[str, Any]] = ()

    def json(self, number: int, x: int, y: int) -> dict[str, Any]:
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        steps += [{"color": colour, "value": value} for value, colour in self.thresholds]
        defaults: dict[str, Any] = {
            "unit": self.unit,
            "custom": dict(self.custom),
            "thresholds": {"mode": "absolute", "steps": steps},
            **self.limits,
        }
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.about,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "datasource": self.targets[0]["datasource"] if self.targets else None,
            "targets": [
                {**target, "refId": chr(ord("A") + place)}
                for place, target in enumerate(self.targets)
            ],
            "fieldConfig": {"defaults": defaults, "overrides": list(self.overrides)},
            "options": dict(self.options),
            **({"transformations": list(self.transformations)} if self.transformations else {}),
        }


@dataclass(frozen=True)
class Row:
    """A heading over the panels after it."""

    title: str


def query(expression: str, legend: str = "__auto", latency: bool = False) -> Target:
    """PromQL over the time shown; of a latency also the exemplars, each a trace."""
    return {
        "datasource": PROMETHEUS,
        "expr": expression,
        "legendFormat": legend,
        "exemplar": latency,
        "range": True,
    }


def instant(expression: str, legend: str = "__auto", table: bool = False) -> Target:
    """PromQL at the end of the time shown."""
    return {
        "datasource": PROMETHEUS,
        "expr": expression,
        "legendFormat": legend,
        "instant": True,
        "range": False,
        "format": "table" if table else "time_series",
    }


def timeseries(
    title: str,
    about: str,
    unit: str,
    *targets: Target,
    width: int = 8,
    stacked: bool = False,
    thresholds: Thresholds = (),
    limits: Mapping[str, float] | None = None,
) -> Panel:
    """Curves; `stacked` where they are parts of a whole."""
    custom: dict[str, Any] = {"fillOpacity": 10, "showPoints": "never", "lineWidth": 1}
    if stacked:
        custom |= {"fillOpacity": 60, "stacking": {"mode": "normal"}}
    if thresholds:
        custom |= {"thresholdsStyle": {"mode": "dashed"}}
    return Panel(
        title,
        about,
        "timeseries",
        unit,
        targets,
        width,
        8,
        thresholds,
        {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        custom,
        limits={"min": 0} if limits is None else limits,
    )


def stat(
    title: str,
    about: str,
    unit: str,
    *targets: Target,
    width: int = 4,
    thresholds: Thresholds = (),
    names: bool = False,
) -> Panel:
    """One number, or with `names` one a series."""
    return Panel(
        title,
        about,
        "stat",
        unit,
        targets,
        width,
        4,
        thresholds,
        {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "graphMode": "area",
            "colorMode": "value" if thresholds else "none",
            "textMode": "value_and_name" if names else "value",
        },
    )


def states(
    title: str, about: str, values: Mapping[int, tuple[str, str]], *targets: Target
) -> Panel:
    """A state over time: what each value is called, and its colour."""
    mappings = {
        str(value): {"text": text, "color": colour, "index": value}
        for value, (text, colour) in values.items()
    }
    return Panel(
        title,
        about,
        "state-timeline",
        "short",
        targets,
        overrides=[
            {
                "matcher": {"id": "byRegexp", "options": "/.*/"},
                "properties": [
                    {"id": "mappings", "value": [{"type": "value", "options": mappings}]}
                ],
            }
        ],
    )


def table(title: str, about: str, unit: str, *targets: Target, width: int = 12) -> Panel:
    """The newest values as rows, the greatest first."""
    return Panel(
        title,
        about,
        "table",
        unit,
        targets,
        width,
        8,
        options={"sortBy": [{"displayName": "Value", "desc": True}]},
        overrides=[WITHOUT_TIME],
    )


def columns(title: str, about: str, *shown: tuple[str, str, str], width: int = 12) -> Panel:
    """The newest values of several queries side by side, the greatest of the first on top.

    Each query is a column: its heading, unit and PromQL. Those of the same labels share a row.
    """
    heads = [
        {
            "matcher": {"id": "byName", "options": f"Value #{chr(ord('A') + place)}"},
            "properties": [{"id": "displayName", "value": head}, {"id": "unit", "value": unit}],
        }
        for place, (head, unit, _) in enumerate(shown)
    ]
    return Panel(
        title,
        about,
        "table",
        shown[0][1],
        [instant(expression, table=True) for _, _, expression in shown],
        width,
        8,
        options={"sortBy": [{"displayName": shown[0][0], "desc": True}]},
        overrides=[WITHOUT_TIME, *heads],
        transformations=[{"id": "merge", "options": {}}],
    )


def traces(title: str, about: str, traceql: str, width: int = 12) -> Panel:
    """Traces found; each row opens its trace."""
    target = {
        "datasource": TEMPO,
        "queryType": "traceql",
        "query": traceql,
        "limit": 20,
        "tableType": "traces",
    }
    return Panel(
        title,
        about,
        "table",
        "ms",
        [target],
        width,
        8,
        overrides=[
            {
                "matcher": {"id": "byRegexp", "options": "/^trace ?id$/i"},
                "properties": [{"id": "links", "value": [TRACE_LINK]}],
            }
        ],
    )


def logs(title: str, about: str, logql: str, width: int = 24) -> Panel:
    """Log lines; each opens its trace by the field the data source derives."""
    return Panel(
        title,
        about,
        "logs",
        "short",
        [{"datasource": LOKI, "expr": logql, "queryType": "range"}],
        width,
        8,
        options={"showTime": True, "enableLogDetails": True, "sortOrder": "Descending"},
    )


def service_graph(title: str, about: str, width: int = 12) -> Panel:
    """The service graph, from the metrics the Collector makes of spans."""
    return Panel(
        title,
        about,
        "nodeGraph",
        "short",
        [{"datasource": TEMPO, "queryType": "serviceMap"}],
        width,
        10,
    )


def explore(what: Mapping[str, str], asked: Mapping[str, Any]) -> str:
    """The address of Explore with one query; `${…}` in it stays for Grafana to fill in."""
    pane = {
        "datasource": what["uid"],
        "queries": [{"refId": "A", "datasource": dict(what), **asked}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    told = quote(json.dumps({"a": pane}, separators=(",", ":")), safe="${}")
    return f"/explore?schemaVersion=1&panes={told}"


TRACE_LINK = {
    "title": "Open the trace",
    "url": explore(TEMPO, {"queryType": "traceql", "query": "${__value.raw}"}),
}
