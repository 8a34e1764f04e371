"""/metrics of the gateway: its own metrics and those of the services behind it, in one scrape."""

import asyncio
from collections.abc import Iterable, Iterator

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


def merge(scrapes: Iterable[tuple[dict[str, str], Iterable[Metric]]]) -> list[Metric]:
    """The families of all scrapes, each sample with the labels that say where it comes from.

    A family that two services give different types is kept as the first has it.
    """
    merged: dict[str, Metric] = {}
    for origin, families in scrapes:
        for family in families:
            target = merged.setdefault(
                family.name, Metric(family.name, family.documentation, family.type, family.unit)
            )
            if target.type == family.type:
                target.samples.extend(
                    sample._replace(labels={**origin, **sample.labels}) for sample in family.samples
                )
    return list(merged.values())


def router(name: str, own: CollectorRegistry, services: list[ServiceClient]) -> APIRouter:
    """`GET /metrics`; a replica that doesn't answer in time is only missing."""
    api = APIRouter()

    def expose(scrapes: list[tuple[dict[str, str], str | None]]) -> bytes:
        up = Metric(schema.SERVICE_UP.name, schema.SERVICE_UP.description, "gauge")
        parsed: list[tuple[dict[str, str], Iterable[Metric]]] = [({"service": name}, own.collect())]
        for origin, text in scrapes:
            families = parse(text)
            up.add_sample(up.name, origin, float(families is not None))
            parsed.append((origin, families or []))
        exposed: bytes = generate_latest(_Families([up, *merge(parsed)]))
        return exposed

    @api.get("/metrics", include_in_schema=False)
    async def metrics(scope: str = "all") -> Response:
        asked = [] if scope == "self" else services
        found = await asyncio.gather(*(scrape(client) for client in asked))
        body = await asyncio.to_thread(expose, [row for rows in found for row in rows])
        return Response(body, media_type=CONTENT_TYPE_LATEST)

    return api


def parse(text: str | None) -> list[Metric] | None:
    """The families of a scrape; None when there is none or it is no OpenMetrics text."""
    try:
        return None if text is None else list(text_string_to_metric_families(text))
    except ValueError:
        return None


async def scrape(client: ServiceClient) -> list[tuple[dict[str, str], str | None]]:
    """For each replica its labels and its metrics, None when it didn't give them."""
    answers = await client.probe_all("/metrics", SCRAPE_SECONDS)
    if not answers:
        return [({"service": client.service}, None)]
    return [
        (
            {"service": client.service, "instance": address},
            answer.text if answer is not None and answer.status_code == 200 else None,
        )
        for address, answer in answers.items()
    ]
