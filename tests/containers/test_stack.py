"""The lite stack as its user meets it."""

import json
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests import tempo
from tests.containers.conftest import ComposeStack, eventually

SERVICES = ("gateway", "llm-proxy", "vector-svc", "inference-svc")
MEGABYTE = 1_000_000


def test_everything_is_healthy(client: httpx2.Client) -> None:
    health = client.get("/health").json()
    assert health["status"] == "healthy", health
    assert health["services"]["vector_database"]["document_count"] >= 60


def test_a_pipeline_call_is_one_trace_through_four_containers(
    lite: ComposeStack, client: httpx2.Client
) -> None:
    answer = client.post("/full-pipeline?query=Explain%20AI&max_tokens=8&seed=7&user_id=ada").json()
    assert answer["summary"]["steps_completed"] == 6, answer["stages"]
    trace = tempo.wait_for(lite.tempo, answer["trace_id"], tempo.whole)
    assert {span.service for span in trace.spans} == set(SERVICES)
    assert {span.attributes["user.id"] for span in trace.spans} == {"ada"}
    assert not [span for span in trace.spans if span.error]


@pytest.mark.parametrize("service", [*SERVICES, "chroma", "trace-store"])
def test_a_container_can_do_little_harm(lite: ComposeStack, service: str) -> None:
    (container,) = lite.containers(service)
    found = lite.inspect(container)
    assert found["Config"]["User"].split(":")[0] not in ("", "0", "root")
    assert found["HostConfig"]["ReadonlyRootfs"] is True
    assert found["HostConfig"]["CapDrop"] == ["ALL"]


@pytest.mark.parametrize("service", ["gateway", "llm-proxy"])
def test_the_small_images_are_small(lite: ComposeStack, service: str) -> None:
    (container,) = lite.containers(service)
    image = lite.inspect(container)["Image"]
    size = subprocess.run(
        ["docker", "image", "inspect", "-f", "{{.Size}}", image],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert int(size.stdout) <= 300 * MEGABYTE


@pytest.mark.parametrize("service", ["gateway", "llm-proxy", "vector-svc"])
def test_only_the_inference_service_has_torch(lite: ComposeStack, service: str) -> None:
    code = "import importlib.util; print(importlib.util.find_spec('torch'))"
    assert lite.compose("exec", "-T", service, "python", "-c", code).strip() == "None"


def test_only_gateway_and_traces_are_published_and_only_here(lite: ComposeStack) -> None:
    rows = [json.loads(line) for line in lite.compose("ps", "--format", "json").splitlines()]
    published = {
        (row["Service"], port["URL"])
        for row in rows
        for port in row["Publishers"] or []
        if port["PublishedPort"]
    }
    assert published == {("gateway", "127.0.0.1"), ("trace-store", "127.0.0.1")}


def test_services_stop_by_themselves_within_ten_seconds(lite: ComposeStack) -> None:
    containers = {service: lite.containers(service)[0] for service in SERVICES}
    started = time.monotonic()
    lite.compose("stop", "--timeout", "12", *SERVICES)
    took = time.monotonic() - started
    states = {service: lite.inspect(one)["State"] for service, one in containers.items()}
    lite.up()
    assert took < 10
    # 143 is SIGTERM, which uvicorn passes on when it has finished; 137 would be a kill.
    assert {state["ExitCode"] for state in states.values()} <= {0, 143}, states


def generating(lite: ComposeStack) -> bool:
    """Whether inference-svc has a request of the gateway in hand."""
    text = httpx2.get(f"{lite.gateway}/metrics", timeout=30).text
    active = r'^http_server_active_requests{[^}]*service="inference-svc"[^}]*} 1\.0$'
    return re.search(active, text, re.MULTILINE) is not None


def test_a_service_with_work_in_flight_stops_in_time_and_says_so(lite: ComposeStack) -> None:
    """Generating 512 tokens takes far longer than a stop may."""
    body = {"prompt": "Count for a very long time:", "max_length": 512, "temperature": 0}

    def generate() -> httpx2.Response:
        return httpx2.post(f"{lite.gateway}/local-inference", json=body, timeout=90)

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(generate)
        eventually(lambda: generating(lite), 30)
        started = time.monotonic()
        lite.compose("stop", "--timeout", "12", "inference-svc")
        took = time.monotonic() - started
        response = answer.result(60)
    lite.up()
    assert took < 10
    assert response.status_code == 503, response.text
    assert response.json()["code"] == "unavailable"


def test_down_and_up_lose_nothing(lite: ComposeStack) -> None:
    body = {"texts": ["What is stored outlives its containers."], "ids": ["outlives"]}
    stored = httpx2.post(f"{lite.gateway}/embed", json=body, timeout=60)
    assert stored.json()["stored_in_vector_db"] is True
    trace_id = stored.headers["x-trace-id"]
    tempo.wait_for(lite.tempo, trace_id, tempo.whole)
    lite.compose("down", "--timeout", "12")
    lite.up()
    query = {"query": "What outlives its containers?", "n_results": 1}
    found = httpx2.post(f"{lite.gateway}/search", json=query, timeout=60).json()
    assert found["results"][0]["id"] == "outlives"
    assert tempo.read(lite.tempo, trace_id).spans
