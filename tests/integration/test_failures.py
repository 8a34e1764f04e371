"""What happens when a part is missing, dies or is told nonsense."""

import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.integration.conftest import EmbeddedStack
from tests.support import tempo
from tests.support.processes import environment, free_ports, service


def test_without_the_vector_service_a_pipeline_call_still_answers(
    stack: EmbeddedStack, tmp_path: Path
) -> None:
    (nobody,) = free_ports(1)
    with service(
        "gateway",
        tmp_path,
        LLM_PROXY_URL=stack.url("LLM_PROXY_PORT"),
        INFERENCE_URL=stack.url("INFERENCE_SVC_PORT"),
        VECTOR_URL=f"http://127.0.0.1:{nobody}",
        INTERNAL_TOKEN=stack.token,
        SEED_CORPUS="false",
    ) as gateway:
        body = {"query": "What is left?", "max_tokens": 4}
        answer = httpx2.post(f"{gateway.url}/full-pipeline", json=body, timeout=60).json()
        health = httpx2.get(f"{gateway.url}/health").json()
    stages = {stage["name"]: stage for stage in answer["stages"]}
    assert {name for name, stage in stages.items() if stage["status"] == "error"} == {
        "search",
        "store",
    }
    assert stages["search"]["error"] == "vector-svc can't be reached"
    assert answer["results"]["openai_response"]["response"] is not None
    assert answer["results"]["similarity_search"] is None
    assert answer["summary"]["steps_completed"] == 4
    assert health["status"] == "degraded"
    assert health["services"]["vector_database"]["status"] == "unavailable"


def test_with_nothing_behind_it_a_call_names_what_is_missing(tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    url = f"http://127.0.0.1:{nobody}"
    addresses = {"LLM_PROXY_URL": url, "INFERENCE_URL": url, "VECTOR_URL": url}
    with service("gateway", tmp_path, path="/livez", **addresses, SEED_CORPUS="false") as gateway:
        health = httpx2.get(f"{gateway.url}/health")
        ready = httpx2.get(f"{gateway.url}/readyz")
        call = httpx2.post(f"{gateway.url}/full-pipeline?query=anyone", timeout=30)
    assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
    assert ready.status_code == 503
    assert call.status_code == 503
    assert "chat: llm-proxy can't be reached" in call.json()["detail"]
    assert "local_inference: inference-svc can't be reached" in call.json()["detail"]


STORE = {
    "documents": ["kept", "also kept"],
    "embeddings": [[1.0, 0.0], [0.0, 1.0]],
    "embedding_model": "model-a",
}


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    folder = str(tmp_path / "chroma")
    with service("vector_svc", tmp_path, CHROMA_PERSIST_DIRECTORY=folder) as vectors:
        stored = httpx2.post(f"{vectors.url}/documents", json=STORE)
        assert stored.json()["documents_added"] == 2
        vectors.kill()
    query = {"embedding": [1.0, 0.1], "embedding_model": "model-a", "n_results": 1}
    with service("vector_svc", tmp_path, CHROMA_PERSIST_DIRECTORY=folder) as vectors:
        (found,) = httpx2.post(f"{vectors.url}/search", json=query).json()["results"]
        other = httpx2.post(f"{vectors.url}/search", json={**query, "embedding_model": "model-b"})
    assert found["document"] == "kept"
    assert other.status_code == 409
    assert "holds vectors of model-a (2 dimensions), not of model-b" in other.json()["detail"]


@pytest.mark.parametrize(
    ("module", "variable", "value"),
    [
        ("gateway", "APP_PORT", "high"),
        ("gateway", "LLM_PROXY_URL", "nowhere"),
        ("llm_proxy", "OPENAI_BASE_URL", "not a url"),
        ("vector_svc", "CHROMA_COLLECTION_NAME", "a"),
        ("vector_svc", "LOG_LEVEL", "LOUD"),
    ],
)
def test_a_bad_setting_stops_the_start_with_one_line(
    tmp_path: Path, module: str, variable: str, value: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=tmp_path,
        env=environment({variable: value}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"{variable}: ")
    assert value in line


def test_a_hub_that_is_not_there_is_one_line_and_a_clean_exit(tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    done = subprocess.run(
        [sys.executable, "-m", "inference_svc"],
        cwd=tmp_path,
        env=environment(
            {
                "LOCAL_MODEL_NAME": "microsoft/DialoGPT-medium",
                "HF_ENDPOINT": f"http://127.0.0.1:{nobody}",
                "HF_HOME": str(tmp_path),
                "HF_HUB_OFFLINE": "0",
            }
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("inference-svc: LOCAL_MODEL_NAME=microsoft/DialoGPT-medium: ")
    assert "the model hub can't be reached" in line


def test_a_stopped_service_sends_its_last_spans_first(stack: EmbeddedStack, tmp_path: Path) -> None:
    with service(
        "vector_svc",
        tmp_path,
        CHROMA_PERSIST_DIRECTORY=str(tmp_path / "chroma"),
        OTEL_EXPORTER_OTLP_ENDPOINT=stack.url("OTLP_PORT"),
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_BSP_SCHEDULE_DELAY="600000",
    ) as vectors:
        trace_id = httpx2.post(f"{vectors.url}/documents", json=STORE).headers["x-trace-id"]
    assert ("vector-svc", "upsert documents") in tempo.read(stack.tempo, trace_id).names()


def test_livez_answers_while_the_model_generates(stack: EmbeddedStack) -> None:
    url, known = stack.url("INFERENCE_SVC_PORT"), {"x-internal-token": stack.token}
    body = {"prompt": "Tell a long story.", "max_length": 24, "num_sequences": 3}
    with httpx2.Client(base_url=url, timeout=90) as client, ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(httpx2.post, f"{url}/local-inference", json=body, headers=known, timeout=90)
            for _ in range(2)
        ]
        times = []
        while not all(call.done() for call in calls):
            started = time.perf_counter()
            assert client.get("/livez").status_code == 200
            times.append(time.perf_counter() - started)
        assert [call.result().status_code for call in calls] == [200, 200]
    assert len(times) > 20
    assert statistics.quantiles(times, n=20)[-1] < 0.05, max(times)
