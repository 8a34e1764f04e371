"""/metrics of the gateway: its own metrics and those of the services behind it, in one scrape."""

import asyncio
from collections.abc import Iterable, Iterator

import httpx2
from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from o11y import schema
from o11y.hop import ServiceClient

SCRAPE_SECONDS = 2.0


class _Families(CollectorRegistry):
    """Metric families that are there already, in the form the exposition wants."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__()
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def merge(scrapes: Iterable[tuple[str, Iterable[Metric]]]) -> list[Metric]:
    """The families of all services, each sample with the `service` it comes from.

    A family that two services give different types is kept as the first has it.
    """
    merged: dict[str, Metric] = {}
    for service, families in scrapes:
        for family in families:
            target = merged.setdefault(
                family.name, Metric(family.name, family.documentation, family.type, family.unit)
            )
            if target.type == family.type:
                target.samples.extend(
                    sample._replace(labels={"service": service, **sample.labels})
                    for sample in family.samples
                )
    return list(merged.values())


def router(name: str, own: CollectorRegistry, services: list[ServiceClient]) -> APIRouter:
    api = APIRouter()

    async def scrape(client: ServiceClient) -> str | None:
        try:
            response = await client.probe("/metrics", SCRAPE_SECONDS)
        except httpx2.HTTPError:
            return None
        return response.text if response.status_code == 200 else None

    def expose(scrapes: list[tuple[str, str | None]]) -> bytes:
        up = Metric(schema.SERVICE_UP.name, schema.SERVICE_UP.description, "gauge")
        parsed: list[tuple[str, Iterable[Metric]]] = [(name, own.collect())]
        for service, text in scrapes:
            up.add_sample(up.name, {"service": service}, float(text is not None))
            if text is not None:
                parsed.append((service, text_string_to_metric_families(text)))
        exposed: bytes = generate_latest(_Families([up, *merge(parsed)]))
        return exposed

    @api.get("/metrics", include_in_schema=False)
    async def metrics(scope: str = "all") -> Response:
        asked = [] if scope == "self" else services
        texts = await asyncio.gather(*(scrape(client) for client in asked))
        scrapes = [(client.service, text) for client, text in zip(asked, texts, strict=True)]
        body = await asyncio.to_thread(expose, scrapes)
        return Response(body, media_type=CONTENT_TYPE_LATEST)

    return api
