"""`python -m deploy.dashboards.stories`: three kinds of trouble, from the first panel to the span.

It needs a running stack whose models have a price (`make stories` starts one), makes the trouble,
and prints what the panels said before and during it and the trace at fault.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console

from deploy.dashboards.grafana import DASHBOARDS
from deploy.dashboards.prometheus import PrometheusError, prometheus
from deploy.dashboards.querying import Curve, curves, figure
from deploy.dashboards.trouble import TROUBLES, Request, Trouble
from deploy.demo import tempo, tree
from deploy.demo.addresses import add_arguments
from deploy.demo.runner import Runner
from deploy.demo.scenarios import CALL_SECONDS
from deploy.demo.workload import mixed

ENOUGH_SERIES = 4
SETTLE_SECONDS = 3.0
"""Seconds until Prometheus and the trace store have the last calls."""


def panel(uid: str, title: str) -> Mapping[str, Any]:
    """The panel as Grafana gets it, the first of that title. LookupError without one."""
    for dashboard in DASHBOARDS:
        if dashboard.uid == uid:
            for each in dashboard.json()["panels"]:
                if each["title"] == title and each["type"] != "row":
                    found: Mapping[str, Any] = each
                    return found
    raise LookupError(f"{uid} has no panel {title}")


async def said(
    http: httpx2.AsyncClient, url: str, shown: Mapping[str, Any], end: float, seconds: float
) -> str:
    """The figures that a panel shows of the seconds before `end`."""
    over = f"{round(seconds)}s"
    unit = shown["fieldConfig"]["defaults"]["unit"]
    found: list[Curve] = []
    for target in shown["targets"]:
        found += await curves(http, url, target, end, end, 1, over)
    figures = [
        f"{curve.name + ' ' if len(found) > 1 else ''}{figure(curve.points[-1][1], unit)}"
        for curve in sorted(found, key=lambda curve: -curve.points[-1][1] if curve.points else 0)
        if curve.points
    ]
    return ", ".join(figures[:ENOUGH_SERIES]) or "nothing"


async def make(http: httpx2.AsyncClient, gateway: str, trouble: Trouble, seconds: float) -> None:
    """Call again and again until time is up; what comes back is of no interest here."""
    until = time.monotonic() + seconds

    async def caller(first: int) -> None:
        number = first
        while time.monotonic() < until:
            request = trouble.requests[number % len(trouble.requests)]
            await send(http, gateway, request)
            number += 1

    async with asyncio.TaskGroup() as group:
        for first in range(trouble.at_once):
            group.create_task(caller(first))


async def send(http: httpx2.AsyncClient, gateway: str, request: Request) -> None:
    headers = {"x-tenant-id": request.tenant, "x-user-id": f"{request.tenant}-user"}
    await http.post(f"{gateway}{request.path}", json=dict(request.body), headers=headers)


async def at_fault(
    http: httpx2.AsyncClient, tempo_url: str, trouble: Trouble, start: float
) -> tempo.Trace:
    """The worst trace since `start` that the query finds. Raises TraceError without one."""
    answer = await http.get(
        f"{tempo_url}/api/search",
        params={
            "q": trouble.traceql,
            "start": int(start),
            "end": int(time.time()) + 1,
            "limit": 200,
        },
    )
    answer.raise_for_status()
    found = answer.json()["traces"]
    if not found:
        raise tempo.TraceError(f"No trace is found by {trouble.traceql}")
    worst = (min if trouble.least else max)(found, key=lambda each: _amount(each, trouble.worst))
    return await tempo.fetch(http, tempo_url, worst["traceID"].zfill(32))


def _amount(found: Mapping[str, Any], key: str) -> float:
    if key == "duration":
        return float(found["durationMs"])
    return max(
        float(next(iter(attribute["value"].values())))
        for span in found["spanSet"]["spans"]
        for attribute in span["attributes"]
        if attribute["key"] == key
    )


async def tell(asked: argparse.Namespace, folder: Path, console: Console) -> None:
    """All of them. Raises PrometheusError, TraceError and httpx2.HTTPError."""
    scraped = {"gateway": f"{asked.gateway_url}/metrics"}
    with prometheus(folder, scraped) as url:
        async with httpx2.AsyncClient(timeout=CALL_SECONDS) as http:
            console.print("An ordinary time first:")
            await Runner(http, asked.gateway_url, console).load(mixed(), asked.seconds)
            await asyncio.sleep(SETTLE_SECONDS)
            ordinary = time.time()
            for trouble in TROUBLES:
                start = time.time()
                await make(http, asked.gateway_url, trouble, asked.seconds)
                await asyncio.sleep(SETTLE_SECONDS)
                end = time.time()
                console.print(f"\n{trouble.name}", style="bold")
                for uid, title in trouble.panels:
                    shown = panel(uid, title)
                    before = await said(http, url, shown, ordinary, asked.seconds)
                    during = await said(http, url, shown, end, end - start)
                    console.print(f"  {uid} · {title}\n    before: {before}\n    now:    {during}")
                console.print(f"  {trouble.traceql}\n")
                trace = await at_fault(http, asked.tempo_url, trouble, start)
                tree.show(console, trace)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="deploy.dashboards.stories", description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="of each time")
    add_arguments(parser)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="stories-") as folder:
        try:
            asyncio.run(tell(asked, Path(folder), tree.console()))
        except (PrometheusError, tempo.TraceError) as error:
            print(error, file=sys.stderr)
            return 1
        except (httpx2.HTTPError, json.JSONDecodeError) as error:
            print(f"The gateway or the trace store does not answer: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
