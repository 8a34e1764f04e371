"""`python -m deploy.demo.scale`: measure how requests over one connection spread over replicas.

Searches go through llm-proxy and inference-svc (the embedding) and vector-svc. The requests that
each replica served are read from the gateway's `/metrics`. Exit code 1 when a service's busiest
replica served more than 1.25 times its least busy one.
"""

import argparse
import sys
from collections import Counter

import httpx2
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from rich.console import Console
from rich.progress import track
from rich.table import Table

from deploy.demo.addresses import credentials, gateway_url

SERVED = "http_server_request_duration_seconds"
ROUTES = {"llm-proxy": "/v1/embeddings", "inference-svc": "/v1/embeddings", "vector-svc": "/search"}
FAIR = 1.25

Served = Counter[tuple[str, str]]
"""Requests by service and replica address."""


def served(metrics: str) -> Served:
    """Count the requests of searches that each replica has served, in the text of `/metrics`."""
    counts: Served = Counter()
    for family in text_string_to_metric_families(metrics):
        if family.name != SERVED:
            continue
        for sample in family.samples:
            labels = sample.labels
            service = labels["service"]
            wanted = sample.name.endswith("_count") and "instance" in labels
            if wanted and labels.get("http_route") == ROUTES.get(service):
                counts[service, labels["instance"]] += int(sample.value)
    return counts


def unfairness(counts: Served, service: str) -> float:
    """Requests of the busiest replica over those of the least busy one."""
    of = [count for (name, _), count in counts.items() if name == service]
    return max(of) / min(of) if min(of, default=0) else float("inf")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="deploy.demo.scale", description=__doc__)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--gateway-url", default=gateway_url())
    asked = parser.parse_args(arguments)
    console = Console()
    try:
        with httpx2.Client(base_url=asked.gateway_url, headers=credentials(), timeout=60) as http:
            before = served(http.get("/metrics").text)
            for _ in track(range(asked.requests), "searching", console=console):
                http.post("/search", json={"query": "What is a replica?"}).raise_for_status()
            after = served(http.get("/metrics").text)
    except httpx2.HTTPError as error:
        console.print(f"The gateway at {asked.gateway_url} did not answer as it should: {error}")
        return 1
    counts = Counter({replica: after[replica] - before[replica] for replica in after})
    table = Table("service", "replica", "requests", "share")
    for (service, replica), count in sorted(counts.items()):
        table.add_row(service, replica, str(count), f"{count / asked.requests:.0%}")
    console.print(table)
    unfair = [service for service in ROUTES if unfairness(counts, service) > FAIR]
    for service in ROUTES:
        console.print(f"{service}: busiest / least busy = {unfairness(counts, service):.2f}")
    return 1 if unfair else 0


if __name__ == "__main__":
    sys.exit(main())
