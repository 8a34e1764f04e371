"""/metrics of the gateway: its own metrics and those of the services behind it, in one scrape."""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Literal

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.service_client import ServiceClient
from o11y.telemetry import schema
from o11y.web.exposition import exposed

SCRAPE_SECONDS = 2.0

UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, UnboundLocalError)
"""Exceptions of the parser for text that is not OpenMetrics."""

SUFFIXES = {
    "counter": ("_total", "_created"),
    "summary": ("_count", "_sum", "_created"),
    "histogram": ("_count", "_sum", "_bucket", "_created"),
    "gaugehistogram": ("_gcount", "_gsum", "_bucket"),
    "info": ("_info",),
}
"""Names of a family's samples beside its own (OpenMetrics 1.0, MetricFamily, Suffixes)."""


class _Families(CollectorRegistry):
    """A registry of metric families that exist already, for the exposition to write."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__()
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def merge(scrapes: Iterable[tuple[dict[str, str], Iterable[Metric]]]) -> list[Metric]:
    """Merge the families of all scrapes, each sample with the labels of the scrape it comes from; a
    label of its own by such a name becomes `exported_…`, as in Prometheus.

    A family whose type or names conflict with those of an earlier one is left out.
    """
    merged: dict[str, Metric] = {}
    owners: dict[str, str] = {}
    for origin, families in scrapes:
        for family in families:
            names = [family.name + end for end in ("", *SUFFIXES.get(family.type, ()))]
            if any(owners.get(name, family.name) != family.name for name in names):
                continue
            target = merged.get(family.name)
            if target is None:
                target = merged[family.name] = Metric(
                    family.name, family.documentation, family.type, family.unit
                )
                owners.update(dict.fromkeys(names, family.name))
            if target.type == family.type:
                target.samples.extend(
                    sample._replace(labels=_placed(sample.labels, origin))
                    for sample in family.samples
                )
    return list(merged.values())


def _placed(labels: dict[str, str], origin: dict[str, str]) -> dict[str, str]:
    renamed = {f"exported_{key}" if key in origin else key: value for key, value in labels.items()}
    return {**renamed, **origin}


def router(name: str, own: CollectorRegistry, services: list[ServiceClient]) -> APIRouter:
    """The route `GET /metrics`; a replica that doesn't answer in time is only missing from it."""
    api = APIRouter()

    def expose(
        here: dict[str, str], scrapes: list[tuple[dict[str, str], str | None]], accept: str
    ) -> Response:
        up = Metric(schema.SERVICE_UP.name, schema.SERVICE_UP.description, "gauge")
        parsed: list[tuple[dict[str, str], Iterable[Metric]]] = [(here, own.collect())]
        for origin, text in scrapes:
            families = parse(text)
            up.add_sample(up.name, origin, float(families is not None))
            parsed.append((origin, families or []))
        return exposed(_Families(merge([({}, [up]), *parsed])), accept)

    @api.get("/metrics", include_in_schema=False)
    async def metrics(request: Request, scope: Literal["all", "self"] = "all") -> Response:
        scraped = [] if scope == "self" else services
        found = await asyncio.gather(*(scrape(client) for client in scraped))
        scrapes = [row for rows in found for row in rows]
        return await asyncio.to_thread(
            expose, _here(name, request), scrapes, request.headers.get("accept", "")
        )

    return api


def _here(name: str, request: Request) -> dict[str, str]:
    """The gateway's own labels: its instance is the address the scrape came to."""
    host, port = request.scope["server"]
    address = f"{host}:{port}" if port else host
    return {schema.LABEL_SERVICE: name, schema.LABEL_INSTANCE: address}


def parse(text: str | None) -> list[Metric] | None:
    """The families of a scrape; None when there is none or it is no OpenMetrics text."""
    try:
        return None if text is None else list(text_string_to_metric_families(text))
    except UNREADABLE:
        return None


async def scrape(client: ServiceClient) -> list[tuple[dict[str, str], str | None]]:
    """The labels of each replica, with the text of its metrics or None where it sent none."""
    answers = await client.probe_all("/metrics", SCRAPE_SECONDS)
    if not answers:
        return [({schema.LABEL_SERVICE: client.service}, None)]
    return [
        (
            {schema.LABEL_SERVICE: client.service, schema.LABEL_INSTANCE: address},
            answer.text if answer is not None and answer.status_code == 200 else None,
        )
        for address, answer in answers.items()
    ]
