"""Metrics as text, in the form a scraper asks for."""

from fastapi import Response
from prometheus_client import CollectorRegistry, exposition
from prometheus_client.openmetrics import exposition as openmetrics

OPENMETRICS = "application/openmetrics-text"


def exposed(registry: CollectorRegistry, accept: str) -> Response:
    """All metrics of a registry as OpenMetrics 1.0, or as Prometheus text 0.0.4 to who accepts
    (RFC 9110 12.5.1) `text/plain` and no OpenMetrics.
    """
    if "text/plain" in accept and OPENMETRICS not in accept:
        plain: bytes = exposition.generate_latest(registry)
        return Response(plain, media_type=exposition.CONTENT_TYPE_PLAIN_0_0_4)
    content: bytes = openmetrics.generate_latest(registry)
    return Response(content, media_type=openmetrics.CONTENT_TYPE_LATEST)
