"""Replicas: everyone gets a share, and one that hangs, dies or comes is noticed in seconds."""

import threading
import time
from collections import Counter
from collections.abc import Callable

import httpx2
from docker.models.containers import Container

from deploy.demo.scale import served, unfairness
from tests.containers.conftest import Containers, Stack
from tests.support import tempo
from tests.support.waiting import until

SEARCH = {"query": "What is a replica?"}
Scale = Callable[..., None]


def search(client: httpx2.Client) -> httpx2.Response:
    return client.post("/search", json=SEARCH)


def test_requests_over_one_connection_reach_every_replica_alike(
    client: httpx2.Client, one_of_each: Scale
) -> None:
    one_of_each(inference_svc=3, vector_svc=2, llm_proxy=2)
    until(lambda: search(client).status_code == 200 and len(replicas(client)) == 7, 20, pause=0.2)
    before = served(client.get("/metrics").text)
    assert {search(client).status_code for _ in range(300)} == {200}
    counts = Counter(served(client.get("/metrics").text))
    counts.subtract(before)
    assert Counter(service for service, _ in counts) == {
        "inference-svc": 3,
        "vector-svc": 2,
        "llm-proxy": 2,
    }
    for service in ("inference-svc", "vector-svc", "llm-proxy"):
        assert unfairness(counts, service) <= 1.25, counts


def test_a_paused_replica_gets_nothing_more_and_a_woken_one_gets_its_share(
    lite: Stack, containers: Containers, client: httpx2.Client, one_of_each: Scale
) -> None:
    one_of_each(vector_svc=2)
    until(lambda: search(client).status_code == 200 and len(replicas(client)) >= 4, 20, pause=0.2)
    tempo_url = lite.tempo
    paused = containers("vector-svc")[0]
    address = address_of(paused)
    paused.pause()
    try:
        time.sleep(5)  # what the requirement allows
        seen = [answered_by(tempo_url, search(client)) for _ in range(6)]
        assert address not in seen
    finally:
        paused.unpause()
    until(lambda: answered_by(tempo_url, search(client)) == address, 15, pause=0.2)
    # It serves before the engine has looked at it again, and Compose goes by the engine's word.
    until(lambda: health(paused) == "healthy", 20, pause=0.2)


def test_a_replica_that_is_added_gets_its_share(
    lite: Stack, containers: Containers, client: httpx2.Client, one_of_each: Scale
) -> None:
    assert search(client).status_code == 200
    one_of_each(vector_svc=2)
    tempo_url = lite.tempo
    addresses = {address_of(container) for container in containers("vector-svc")}
    unseen = set(addresses)

    def every_replica_has_answered() -> bool:
        unseen.discard(answered_by(tempo_url, search(client)))
        return not unseen

    assert len(addresses) == 2
    until(every_replica_has_answered, 10, pause=0.2)


def test_a_stopped_and_a_killed_replica_cost_no_idempotent_request(
    lite: Stack, containers: Containers, client: httpx2.Client, one_of_each: Scale
) -> None:
    one_of_each(vector_svc=3)
    until(lambda: search(client).status_code == 200 and len(replicas(client)) >= 5, 20, pause=0.2)
    statuses: Counter[int] = Counter()
    over = threading.Event()

    def keep_searching() -> None:
        with httpx2.Client(base_url=client.base_url, timeout=60) as own:
            while not over.is_set():
                statuses[search(own).status_code] += 1

    workers = [threading.Thread(target=keep_searching) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        stopped, killed, _ = containers("vector-svc")
        stopped.stop(timeout=12)
        killed.kill()
        before = statuses.total()
        until(lambda: statuses.total() > before + 20, 30, pause=0.2)
    finally:
        over.set()
        for worker in workers:
            worker.join(70)
    assert set(statuses) == {200}, statuses


def replicas(client: httpx2.Client) -> set[tuple[str, str]]:
    """(service, address) of every replica the gateway sees."""
    lines = client.get("/metrics").text.splitlines()
    up = [line for line in lines if line.startswith("o11y_service_up{") and line.endswith(" 1.0")]
    return {
        (line.split('service="')[1].split('"')[0], line.split('instance="')[1].split('"')[0])
        for line in up
    }


def address_of(container: Container) -> str:
    """The container's IP address on the stack's network."""
    (network,) = container.attrs["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def health(container: Container) -> str:
    """What the engine says of the container's health now."""
    container.reload()
    return str(container.attrs["State"]["Health"]["Status"])


def answered_by(tempo_url: str, answer: httpx2.Response) -> str:
    """The address of the vector service's replica that served this search, from its trace."""
    assert answer.status_code == 200, answer.text
    trace = tempo.wait_for(tempo_url, answer.headers["x-trace-id"], tempo.whole)
    (span,) = (
        span
        for span in trace.spans
        if span.kind == "CLIENT" and span.service == "gateway" and span.name == "POST /search"
    )
    return str(span.attributes["server.address"])
