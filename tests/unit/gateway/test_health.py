"""/health and /stats: the state of the whole in one answer, whoever is down."""

from datetime import datetime
from typing import Any

import httpx2
import pytest
from httpx2 import Response

from tests.support.gateway_services import INFERENCE, LLM, VECTOR, Gateway, Services, problem

NAMES = {LLM: "openai_service", VECTOR: "vector_database", INFERENCE: "local_model"}


async def test_each_service_says_of_itself_how_it_is(gateway: Gateway) -> None:
    response = await gateway.client.get("/health")
    answer = response.json()
    assert response.status_code == 200
    assert datetime.fromisoformat(answer.pop("timestamp")).tzinfo
    assert answer == {
        "status": "healthy",
        "services": {
            "openai_service": {"status": "available", "provider": "openai"},
            "vector_database": {"status": "available", "document_count": 3},
            "local_model": {"status": "available", "model_name": "tiny", "device": "cpu"},
        },
    }


@pytest.mark.parametrize(
    ("down", "overall", "status"),
    [
        ([VECTOR], "degraded", 200),
        ([LLM], "degraded", 200),
        ([INFERENCE], "degraded", 200),
        ([LLM, VECTOR], "degraded", 200),
        ([LLM, INFERENCE], "unhealthy", 503),
        ([LLM, VECTOR, INFERENCE], "unhealthy", 503),
    ],
)
async def test_it_is_unhealthy_only_when_nothing_can_answer(
    down: list[str], overall: str, status: int, gateway: Gateway, services: Services
) -> None:
    services.answers = dict.fromkeys(down, httpx2.ConnectError("refused"))
    response = await gateway.client.get("/health")
    assert (response.status_code, response.json()["status"]) == (status, overall)
    for service in down:
        assert response.json()["services"][NAMES[service]] == {
            "status": "unavailable",
            "reason": f"{service} can't be reached",
        }


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Response(200, json={"status": "unavailable", "reason": "no key"}), "no key"),
        (problem(503, "loading"), "loading"),
        (problem(500, "oh"), "oh"),
        (httpx2.ReadTimeout("slow"), "did not answer"),
        (Response(200, content=b"<html>"), "inference-svc"),
        (Response(200, json=[]), "inference-svc"),
        (Response(200, json={}), "inference-svc"),
    ],
)
async def test_a_service_that_is_not_well_is_unavailable_with_the_reason(
    answer: Response | Exception, reason: str, gateway: Gateway, services: Services
) -> None:
    services.answers[f"{INFERENCE}/health"] = answer
    response = await gateway.client.get("/health")
    assert (response.status_code, response.json()["status"]) == (200, "degraded")
    state = response.json()["services"]["local_model"]
    assert state["status"] == "unavailable"
    assert reason in state["reason"]


async def stats(gateway: Gateway) -> dict[str, Any]:
    response = await gateway.client.get("/stats")
    assert response.status_code == 200
    answer: dict[str, Any] = response.json()
    return answer


async def test_stats_are_the_services_own(gateway: Gateway) -> None:
    answer = await stats(gateway)
    assert answer["vector_database"] == {"collection_name": "documents", "document_count": 0}
    assert answer["local_model"] == {"model_name": "tiny", "device": "cpu", "parameters": 7}
    assert answer["system"]["uptime_seconds"] >= 0
    assert datetime.fromisoformat(answer["system"]["timestamp"]).tzinfo


@pytest.mark.parametrize(
    "answer", [httpx2.ConnectError("refused"), problem(503), Response(200, content=b"<html>")]
)
async def test_a_service_that_is_down_does_not_hide_the_others_stats(
    answer: Response | Exception, gateway: Gateway, services: Services
) -> None:
    services.answers[VECTOR] = answer
    found = await stats(gateway)
    assert set(found["vector_database"]) == {"error"}
    assert found["local_model"]["model_name"] == "tiny"
