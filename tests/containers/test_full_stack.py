"""The full stack, where its backends' images are on this machine: nothing is pulled here."""

from collections.abc import Iterator

import httpx2
import pytest
from docker import DockerClient

from tests.containers.conftest import BASE, Stack, new_stack, running
from tests.support import tempo


@pytest.fixture(scope="module")
def full(engine: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with new_stack(tmp_path_factory.mktemp("full"), "o11y-full-test", BASE) as full:
        for service in full.get_config()["services"].values():
            image = service["image"]
            if not image.startswith("o11y-4-ai/") and not engine.images.list(image):
                pytest.skip(f"the image {image} is not on this machine")
        with running(full):
            yield full


def test_a_pipeline_call_is_one_trace_in_tempo(full: Stack) -> None:
    url = f"{full.gateway}/full-pipeline?query=Explain%20AI&max_tokens=8&seed=7"
    answer = httpx2.post(url, timeout=90).json()
    through_grafana = f"{full.url('grafana', 3000)}/api/datasources/proxy/uid/tempo"
    trace = tempo.wait_for(through_grafana, answer["trace_id"], tempo.whole)
    assert {span.service for span in trace.spans} == {
        "gateway",
        "llm-proxy",
        "vector-svc",
        "inference-svc",
    }
