"""The full stack, where its backends' images are on this machine: nothing is pulled here."""

import subprocess
from collections.abc import Iterator

import httpx2
import pytest

from tests import tempo
from tests.containers.conftest import BASE, ComposeStack, running, settings


@pytest.fixture(scope="module")
def full(engine: None) -> Iterator[ComposeStack]:
    stack = ComposeStack("o11y-full-test", (BASE,), settings("GATEWAY_PORT", "GRAFANA_PORT"))
    images = stack.compose("config", "--images").split()
    foreign = [image for image in images if not image.startswith("o11y-4-ai/")]
    for image in foreign:
        found = subprocess.run(
            ["docker", "image", "inspect", image], capture_output=True, timeout=30, check=False
        )
        if found.returncode:
            pytest.skip(f"the image {image} is not on this machine")
    with running(stack):
        yield stack


def test_a_pipeline_call_is_one_trace_in_tempo(full: ComposeStack) -> None:
    gateway = f"http://127.0.0.1:{full.environment['GATEWAY_PORT']}"
    grafana = f"http://127.0.0.1:{full.environment['GRAFANA_PORT']}"
    url = f"{gateway}/full-pipeline?query=Explain%20AI&max_tokens=8&seed=7"
    answer = httpx2.post(url, timeout=90).json()
    through_grafana = f"{grafana}/api/datasources/proxy/uid/tempo"
    trace = tempo.wait_for(through_grafana, answer["trace_id"], tempo.whole)
    assert {span.service for span in trace.spans} == {
        "gateway",
        "llm-proxy",
        "vector-svc",
        "inference-svc",
    }
