"""The lite stack as its user meets it."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx2
import pytest
from docker import DockerClient

from tests.containers.conftest import Containers, Stack
from tests.support import tempo
from tests.support.waiting import until

SERVICES = ("gateway", "llm-proxy", "vector-svc", "inference-svc")
MEGABYTE = 1_000_000


def test_everything_is_healthy(client: httpx2.Client) -> None:
    health = client.get("/health").json()
    assert health["status"] == "healthy", health
    assert health["services"]["vector_database"]["document_count"] >= 60


def test_a_pipeline_call_is_one_trace_through_four_containers(
    lite: Stack, client: httpx2.Client
) -> None:
    answer = client.post("/full-pipeline?query=Explain%20AI&max_tokens=8&seed=7&user_id=ada").json()
    assert answer["summary"]["steps_completed"] == 6, answer["stages"]
    trace = tempo.wait_for(lite.tempo, answer["trace_id"], tempo.whole)
    assert {span.service for span in trace.spans} == set(SERVICES)
    assert {span.attributes["user.id"] for span in trace.spans} == {"ada"}
    assert not [span for span in trace.spans if span.error]


def test_the_console_shows_a_call_of_the_containers(lite: Stack, client: httpx2.Client) -> None:
    page = client.get("/")
    for file in re.findall(r'(?:src|href)="(/console/files/[^"]+)"', page.text):
        assert client.get(file).status_code == 200, file
    trace_id = client.post("/search", json={"query": "spans"}).headers["x-trace-id"]
    tempo.wait_for(lite.tempo, trace_id, tempo.whole)
    shown = client.get(f"/console/data/traces/{trace_id}").json()["spans"]
    assert {"gateway", "llm-proxy", "vector-svc"} <= {span["service"] for span in shown}


@pytest.mark.parametrize("service", [*SERVICES, "chroma", "trace-store"])
def test_a_container_can_do_little_harm(containers: Containers, service: str) -> None:
    (container,) = containers(service)
    found = container.attrs
    assert found["Config"]["User"].split(":")[0] not in ("", "0", "root")
    assert found["HostConfig"]["ReadonlyRootfs"] is True
    assert found["HostConfig"]["CapDrop"] == ["ALL"]


# both have SQLAlchemy, and psycopg with its libraries: 36 MB
@pytest.mark.parametrize(("service", "megabytes"), [("gateway", 340), ("llm-proxy", 340)])
def test_the_small_images_are_small(
    engine: DockerClient, containers: Containers, service: str, megabytes: int
) -> None:
    (container,) = containers(service)
    image = engine.images.get(container.attrs["Image"])
    assert image.attrs["Size"] <= megabytes * MEGABYTE


@pytest.mark.parametrize("service", ["gateway", "llm-proxy", "vector-svc"])
def test_only_the_inference_service_has_torch(lite: Stack, service: str) -> None:
    code = "import importlib.util; print(importlib.util.find_spec('torch'))"
    found, _, _ = lite.exec_in_container(["python", "-c", code], service)
    assert found.strip() == "None"


def test_only_gateway_and_traces_are_published_and_only_here(lite: Stack) -> None:
    published = {
        (container.Service, port.URL)
        for container in lite.get_containers()
        for port in container.Publishers
        if port.PublishedPort
    }
    assert published == {("gateway", "127.0.0.1"), ("trace-store", "127.0.0.1")}


def stop(lite: Stack, *services: str) -> float:
    """Seconds that it took to stop the services."""
    started = time.monotonic()
    replace(lite, services=list(services)).stop(down=False)
    return time.monotonic() - started


def test_services_stop_by_themselves_within_ten_seconds(
    engine: DockerClient, lite: Stack, containers: Containers
) -> None:
    ids = {service: str(containers(service)[0].id) for service in SERVICES}
    took = stop(lite, *SERVICES)
    states = {service: engine.containers.get(one).attrs["State"] for service, one in ids.items()}
    lite.start()
    assert took < 10
    # 143 is SIGTERM, which uvicorn passes on when it has finished; 137 would be a kill.
    assert {state["ExitCode"] for state in states.values()} <= {0, 143}, states


def generating(gateway: str) -> bool:
    """Whether inference-svc has a request of the gateway in hand."""
    text = httpx2.get(f"{gateway}/metrics", timeout=30).text
    active = r'^http_server_active_requests{[^}]*service="inference-svc"[^}]*} 1\.0$'
    return re.search(active, text, re.MULTILINE) is not None


def test_a_service_with_work_in_flight_stops_in_time_and_says_so(lite: Stack) -> None:
    """Generating 512 tokens takes far longer than a stop may."""
    gateway = lite.gateway
    body = {"prompt": "Count for a very long time:", "max_length": 512, "temperature": 0}

    def generate() -> httpx2.Response:
        return httpx2.post(f"{gateway}/local-inference", json=body, timeout=90)

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(generate)
        until(lambda: generating(gateway), 30, pause=0.2)
        took = stop(lite, "inference-svc")
        response = answer.result(60)
    lite.start()
    assert took < 10
    assert response.status_code == 503, response.text
    assert response.json()["code"] == "unavailable"


def test_down_and_up_lose_nothing(lite: Stack) -> None:
    body = {"texts": ["What is stored outlives its containers."], "ids": ["outlives"]}
    stored = httpx2.post(f"{lite.gateway}/embed", json=body, timeout=60)
    assert stored.json()["stored_in_vector_db"] is True
    trace_id = stored.headers["x-trace-id"]
    tempo.wait_for(lite.tempo, trace_id, tempo.whole)
    lite.command("down")
    lite.start()
    query = {"query": "What outlives its containers?", "n_results": 1}
    found = httpx2.post(f"{lite.gateway}/search", json=query, timeout=60).json()
    assert found["results"][0]["id"] == "outlives"
    assert tempo.read(lite.tempo, trace_id).spans
