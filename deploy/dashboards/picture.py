"""`python -m deploy.dashboards.picture`: the dashboards and one trace as images, from a demo run.

It plays the demo's load against a running stack (`make up`), has a Prometheus of its own scrape the
gateway meanwhile, and writes deploy/grafana/pictures.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from deploy.dashboards.dashboard_picture import dashboards_picture
from deploy.dashboards.grafana import DASHBOARDS
from deploy.dashboards.prometheus import PrometheusError, prometheus
from deploy.dashboards.querying import Curve, curves
from deploy.dashboards.trace_picture import trace_picture
from deploy.demo import tempo, tree
from deploy.demo.addresses import gateway_url, tempo_url
from deploy.demo.runner import Runner
from deploy.demo.scenarios import CALL_SECONDS, SERVICES, SETTLE_SECONDS
from deploy.demo.workload import SCENARIOS, mixed

PICTURES = Path(__file__).parents[1] / "grafana" / "pictures"
RULES = Path(__file__).parents[1] / "prometheus" / "rules"
OVER = "15s"
STEP_SECONDS = 2.0


async def play(http: httpx2.AsyncClient, gateway_url: str, seconds: float) -> str:
    """Load for so long, then a pipeline call with every stage: its trace. Raises TraceError."""
    runner = Runner(http, gateway_url, tree.console())
    await runner.load(mixed(), seconds)
    tally = await runner.play("pipeline", SCENARIOS["pipeline"](0))
    trace_id = tally.outcomes[-1].trace_id
    if trace_id is None:
        raise tempo.TraceError(f"{gateway_url} names no trace in its answer.")
    return trace_id


async def panels(
    http: httpx2.AsyncClient, url: str, dashboards: list[dict[str, Any]], start: float
) -> dict[tuple[str, int], list[Curve]]:
    """What Prometheus has for every panel since `start`."""
    found: dict[tuple[str, int], list[Curve]] = {}
    end = time.time()
    for dashboard in dashboards:
        for panel in dashboard["panels"]:
            found[str(dashboard["uid"]), panel["id"]] = [
                curve
                for target in panel.get("targets", ())
                if "expr" in target and target["datasource"]["type"] == "prometheus"
                for curve in await curves(http, url, target, start, end, STEP_SECONDS, OVER)
            ]
    return found


async def draw(asked: argparse.Namespace, folder: Path) -> None:
    """Write the pictures. Raises PrometheusError, TraceError and httpx2.HTTPError."""
    dashboards = [dashboard.json() for dashboard in DASHBOARDS]
    rules = sorted(RULES.glob("*.yaml"))
    with prometheus(folder, {"gateway": f"{asked.gateway_url}/metrics"}, rules) as url:
        async with httpx2.AsyncClient(timeout=CALL_SECONDS) as http:
            start = time.time()
            trace_id = await play(http, asked.gateway_url, asked.seconds)
            trace = await tempo.settled(http, asked.tempo_url, trace_id, SERVICES, SETTLE_SECONDS)
            found = await panels(http, url, dashboards, start)
    PICTURES.mkdir(exist_ok=True)
    pictures = {
        "dashboards.svg": dashboards_picture(dashboards, found),
        "trace.svg": trace_picture(trace),
    }
    for name, picture in pictures.items():
        (PICTURES / name).write_text(picture)
        print(f"wrote {PICTURES / name}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="deploy.dashboards.picture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load")
    parser.add_argument("--gateway-url", default=gateway_url())
    parser.add_argument("--tempo-url", default=tempo_url())
    asked = parser.parse_args(arguments)
    asked.gateway_url = asked.gateway_url.rstrip("/")
    asked.tempo_url = asked.tempo_url.rstrip("/")
    with tempfile.TemporaryDirectory(prefix="picture-") as folder:
        try:
            asyncio.run(draw(asked, Path(folder)))
        except (PrometheusError, tempo.TraceError) as error:
            print(error, file=sys.stderr)
            return 1
        except httpx2.HTTPError as error:
            print(f"The gateway or Prometheus does not answer: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
