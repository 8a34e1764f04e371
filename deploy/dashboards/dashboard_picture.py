"""Dashboards as a picture: panels as Grafana places them, with what Prometheus has of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from deploy.dashboards.drawing import CARD, COLOURS, FAINT, LINE, Drawing, cut
from deploy.dashboards.querying import Curve
from deploy.demo.figures import dollars, seconds

COLUMNS = 24
CELL, UNIT = 22.5, 12.5
"""Width of a column and height of a row of Grafana's grid in pixels."""

GAP, HEADING = 20.0, 30.0
LEGEND = 3
"""Series named under a panel, at most."""

Dashboard = Mapping[str, Any]
Found = Mapping[tuple[str, int], Sequence[Curve]]
"""The curves by the dashboard's uid and the panel's id."""


def dashboards_picture(dashboards: Sequence[Dashboard], found: Found) -> str:
    """All of them as SVG, in two columns."""
    width = COLUMNS * CELL
    heights = [HEADING + _rows(each) * UNIT for each in dashboards]
    lines = [heights[number : number + 2] for number in range(0, len(heights), 2)]
    height = GAP + sum(max(line) + GAP for line in lines)
    drawing = Drawing(2 * width + 3 * GAP, height, "The dashboards, with the data of a demo run")
    top = GAP
    for number, dashboard in enumerate(dashboards):
        left = GAP + (number % 2) * (width + GAP)
        _dashboard(drawing, dashboard, found, left, top)
        if number % 2:
            top += max(lines[number // 2]) + GAP
    return drawing.svg()


def _rows(dashboard: Dashboard) -> int:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    return max(int(place["y"]) + int(place["h"]) for place in places)


def _dashboard(
    drawing: Drawing, dashboard: Dashboard, found: Found, left: float, top: float
) -> None:
    drawing.text(left, top + 16, dashboard["title"], 14)
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        x, y = left + place["x"] * CELL, top + HEADING + place["y"] * UNIT
        width, height = place["w"] * CELL - 4, place["h"] * UNIT - 4
        if panel["type"] == "row":
            drawing.text(x, y + 9, panel["title"], 9, FAINT)
            continue
        drawing.box(x, y, width, height, CARD, LINE)
        drawing.text(x + 5, y + 11, cut(panel["title"], width - 10, 8), 8)
        curves = found.get((dashboard["uid"], panel["id"]), ())
        _content(drawing, panel, curves, x + 5, y + 16, width - 10, height - 20)


def _content(
    drawing: Drawing,
    panel: Mapping[str, Any],
    curves: Sequence[Curve],
    x: float,
    y: float,
    width: float,
    height: float,
) -> None:
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "short")
    last = [(curve.name, curve.points[-1][1]) for curve in curves if curve.points]
    if not last:
        drawing.text(x, y + 10, _source(panel), 7.5, FAINT)
    elif panel["type"] in ("stat", "gauge"):
        size = max(8.0, min(16.0, height * 0.7))
        told = "  ".join(figure(value, unit) for _, value in last[:2])
        drawing.text(x, y + height * 0.7, cut(told, width, size), size, COLOURS[0])
    elif panel["type"] in ("table", "bargauge", "piechart"):
        for number, (name, value) in enumerate(last[: int(height // 10)]):
            drawing.text(x, y + 8 + 10 * number, cut(name, width * 0.65, 7.5), 7.5, FAINT)
            drawing.text(x + width, y + 8 + 10 * number, figure(value, unit), 7.5, end=True)
    else:
        shown = last[: min(LEGEND, int(height // 30))]
        drawing.plot(x, y, width, height - 10 * len(shown) - 3, [curve.points for curve in curves])
        for number, (name, value) in enumerate(shown):
            below = y + height - 10 * (len(shown) - 1 - number)
            drawing.text(x, below, cut(name, width * 0.7, 7), 7, COLOURS[number % len(COLOURS)])
            drawing.text(x + width, below, figure(value, unit), 7, FAINT, end=True)


def _source(panel: Mapping[str, Any]) -> str:
    """What is said where Prometheus has nothing to draw."""
    target: Mapping[str, Any] = next(iter(panel.get("targets", ())), {})
    kind = (target.get("datasource") or panel.get("datasource") or {}).get("type")
    match kind:
        case "tempo":
            return "traces, from Tempo"
        case "loki":
            return "log lines, from Loki"
        case "prometheus":
            return "nothing in this run"
    return ""


def figure(value: float, unit: str) -> str:
    """A number in a unit of Grafana's, short."""
    if not math.isfinite(value):
        return "no number"
    match unit:
        case "s":
            return seconds(value)
        case "percentunit":
            return f"{100 * value:.3g} %"
        case "percent":
            return f"{value:.3g} %"
        case "currencyUSD":
            return dollars(value)
        case "bytes" | "decbytes":
            return f"{value / 1e6:,.0f} MB"
        case "reqps" | "ops" | "cps":
            return f"{value:.3g}/s"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
