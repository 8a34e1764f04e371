"""The answers of Prometheus to the queries of a panel."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from deploy.demo.figures import dollars, seconds

VARIABLE = re.compile(r"\$\{?(\w+)\}?")


@dataclass(frozen=True)
class Curve:
    """One series over time: seconds since 1970 and value."""

    name: str
    points: list[tuple[float, float]]


def concrete(expression: str, over: str) -> str:
    """A panel's query as Grafana would send it: every duration `over`, every variable All."""
    return VARIABLE.sub(
        lambda found: over if found[1].startswith("__") else ".+",
        expression,
    )


def legend(pattern: str, labels: Mapping[str, str]) -> str:
    """A series' name as its panel writes it: `{{label}}` is the label's value."""
    if not pattern or pattern == "__auto":
        return ", ".join(value for key, value in labels.items() if key != "__name__")
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), pattern)


async def curves(
    http: httpx2.AsyncClient,
    url: str,
    target: Mapping[str, Any],
    start: float,
    end: float,
    step: float,
    over: str,
) -> list[Curve]:
    """A target's series in this time. Raises httpx2.HTTPError where Prometheus refuses it."""
    answer = await http.post(
        f"{url}/api/v1/query_range",
        data={
            "query": concrete(target["expr"], over),
            "start": f"{start}",
            "end": f"{end}",
            "step": f"{step}",
        },
    )
    answer.raise_for_status()
    return [
        Curve(
            legend(target.get("legendFormat", ""), series["metric"]),
            [
                (float(at), float(value))
                for at, value in series["values"]
                if value not in ("NaN", "+Inf", "-Inf")
            ],
        )
        for series in answer.json()["data"]["result"]
    ]


def figure(value: float, unit: str) -> str:
    """A number in a unit of Grafana's, in few characters."""
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
