"""The pipeline: what runs when, what remains when a stage fails, what the answer sums up."""

import asyncio
from typing import Any

import httpx2
import pytest
from httpx2 import Response
from opentelemetry.trace import SpanKind, StatusCode

from gateway.contracts import STAGES
from o11y.telemetry import schema
from tests.support.gateway_services import (
    ANSWER,
    CHAT,
    DOCUMENTS,
    EMBED,
    GENERATE,
    SEARCH,
    STORE,
    Gateway,
    Held,
    Services,
    generated,
    llm_response,
    problem,
)
from tests.support.recorded import attributes, identity

PATIENCE_SECONDS = 5
QUERY = "why is the sky blue?"
WORKFLOW = "invoke_workflow full-pipeline"


async def run(gateway: Gateway, **asked: object) -> dict[str, Any]:
    response = await gateway.post("/full-pipeline", {"query": QUERY, **asked})
    assert response.status_code == 200
    answer: dict[str, Any] = response.json()
    return answer


def statuses(answer: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["status"] for stage in answer["stages"]}


def fail(services: Services, stage: str, answer: Response | Exception) -> None:
    """Make this stage's call, and no other, end so."""
    calls = {"local_inference": GENERATE, "search": SEARCH, "chat": CHAT, "store": STORE}
    if stage in calls:
        services.answers[calls[stage]] = answer
        return

    def embedding(body: dict[str, Any]) -> Response | None:
        if (body["input"] == [QUERY]) != (stage == "embed_query"):
            return None
        if isinstance(answer, Exception):
            raise answer
        return answer

    services.answers[EMBED] = embedding


# Order


async def test_the_stages_behind_the_query_follow_each_other(
    gateway: Gateway, services: Services
) -> None:
    answer = await run(gateway)
    assert services.calls(GENERATE) == [EMBED, SEARCH, CHAT, EMBED, STORE]
    assert [asked.body["input"] for asked in services.requests if asked.call == EMBED] == [
        [QUERY],
        [ANSWER],
    ]
    assert [stage["name"] for stage in answer["stages"]] == [*STAGES]
    assert set(statuses(answer).values()) == {"ok"}


async def test_the_query_is_stored_after_the_search_and_never_finds_itself(
    gateway: Gateway, services: Services
) -> None:
    await run(gateway)
    calls = services.calls()
    assert calls.index(SEARCH) < calls.index(STORE)
    searched = services.asked(SEARCH).body
    assert "query" in str(searched["filter_metadata"]["kind"])
    assert searched["caller_filters"] is False


@pytest.mark.parametrize(("held", "done"), [(GENERATE, STORE), (EMBED, GENERATE)])
async def test_the_local_generation_and_the_rest_do_not_wait_for_each_other(
    held: str, done: str, gateway: Gateway, services: Services
) -> None:
    slow, reached = Held(), asyncio.Event()
    services.answers[held] = slow

    def reach(_: object) -> None:
        reached.set()

    services.answers[done] = reach
    async with asyncio.timeout(PATIENCE_SECONDS):
        call = asyncio.create_task(run(gateway))
        await slow.asked.wait()
        await reached.wait()
        assert not call.done()
        slow.let_go.set()
        assert set(statuses(await call).values()) == {"ok"}


# What it asks for


@pytest.mark.parametrize(("use_context", "roles"), [(True, ["system", "user"]), (False, ["user"])])
async def test_the_chat_sees_the_documents_unless_told_not_to(
    use_context: bool, roles: list[str], gateway: Gateway, services: Services
) -> None:
    answer = await run(gateway, use_context=use_context, n_results=2)
    messages = services.asked(CHAT).body["messages"]
    assert [message["role"] for message in messages] == roles
    assert messages[-1]["content"] == QUERY
    shown = all(document in messages[0]["content"] for document in DOCUMENTS)
    assert shown is use_context
    assert answer["summary"]["search_results_found"] == 2


async def test_nothing_found_is_no_context(gateway: Gateway, services: Services) -> None:
    services.answers[SEARCH] = Response(200, json={"results": [], "duration_seconds": 0})
    answer = await run(gateway)
    assert services.asked(CHAT).body["messages"] == [{"role": "user", "content": QUERY}]
    assert statuses(answer)["search"] == "ok"


async def test_both_models_get_the_query_and_the_limits(
    gateway: Gateway, services: Services
) -> None:
    await run(gateway, max_tokens=9, n_results=7)
    assert services.asked(CHAT).body["max_tokens"] == 9
    local = services.asked(GENERATE).body
    assert (local["prompt"], local["max_length"]) == (QUERY, 9)
    search = services.asked(SEARCH).body
    assert (search["embedding"], search["embedding_model"]) == ([0, 1.0], "embedder")
    assert search["n_results"] == 7


async def test_query_and_answer_are_stored_with_their_kind_and_trace(
    gateway: Gateway, services: Services
) -> None:
    answer = await run(gateway)
    body = services.asked(STORE).body
    assert body["documents"] == [QUERY, ANSWER]
    assert len(body["embeddings"]) == 2
    assert [row["kind"] for row in body["metadata"]] == ["query", "answer"]
    assert {row["trace_id"] for row in body["metadata"]} == {answer["trace_id"]}
    assert answer["summary"]["documents_stored"] == 2


async def test_nothing_is_stored_when_not_asked_to(gateway: Gateway, services: Services) -> None:
    answer = await run(gateway, store_results=False)
    assert services.calls(GENERATE) == [EMBED, SEARCH, CHAT]
    assert (statuses(answer)["embed_answer"], statuses(answer)["store"]) == ("skipped", "skipped")
    assert answer["results"]["vector_storage"] is None
    assert answer["summary"]["steps_completed"] == len(STAGES) - 2
    assert answer["summary"]["documents_stored"] == 0


@pytest.mark.parametrize("content", [None, "", "  \n"])
async def test_an_empty_answer_is_not_embedded(
    content: str | None, gateway: Gateway, services: Services
) -> None:
    whole = {"model": "m", "usage": {}, "choices": [{"message": {"content": content}}]}
    services.answers[CHAT] = llm_response(whole)
    answer = await run(gateway)
    assert (statuses(answer)["chat"], statuses(answer)["embed_answer"]) == ("ok", "skipped")
    assert services.asked(STORE).body["documents"] == [QUERY]


@pytest.mark.parametrize(
    ("query", "body"),
    [
        (f"query={QUERY}&max_tokens=9&store_results=false", None),
        ("", {"query": QUERY, "max_tokens": 9, "store_results": False}),
        (f"query={QUERY}&max_tokens=9", {"store_results": False}),
        ("query=other&max_tokens=5&store_results=false", {"query": QUERY, "max_tokens": 9}),
    ],
)
async def test_query_parameters_and_body_make_up_the_request_together(
    query: str, body: object, gateway: Gateway, services: Services
) -> None:
    response = await gateway.post(f"/full-pipeline?{query}", body)
    assert response.json()["query"] == QUERY
    local = services.asked(GENERATE).body
    assert (local["prompt"], local["max_length"]) == (QUERY, 9)
    assert statuses(response.json())["store"] == "skipped"


# Failures

FAILURES = [
    problem(503, "the disk is full"),
    httpx2.ConnectError("refused"),
    Response(200, content=b"<html>", headers={"X-O11y-Provider": "openai"}),
]


@pytest.mark.parametrize(
    ("stage", "skipped", "lost", "stored"),
    [
        ("embed_query", ["search"], "similarity_search", [ANSWER]),
        ("local_inference", [], "local_model_response", [QUERY, ANSWER]),
        ("search", [], "similarity_search", [QUERY, ANSWER]),
        ("chat", ["embed_answer"], "openai_response", [QUERY]),
        ("embed_answer", [], None, [QUERY]),
        ("store", [], "vector_storage", []),
    ],
)
@pytest.mark.parametrize("failure", FAILURES, ids=["problem", "refused", "garbage"])
async def test_a_stage_that_fails_does_not_lose_the_others_work(
    failure: Response | Exception,
    stage: str,
    skipped: list[str],
    lost: str | None,
    stored: list[str],
    gateway: Gateway,
    services: Services,
) -> None:
    fail(services, stage, failure)
    answer = await run(gateway)
    expected = {name: "skipped" if name in skipped else "ok" for name in STAGES}
    assert statuses(answer) == {**expected, stage: "error"}
    reasons = {found["name"]: found["error"] for found in answer["stages"]}
    assert reasons[stage]
    assert all(reasons[name] for name in skipped)
    assert {name for name, result in answer["results"].items() if result is None} == (
        {lost} if lost else set()
    )
    assert answer["summary"]["steps_completed"] == len(STAGES) - 1 - len(skipped)
    assert answer["summary"]["documents_stored"] == len(stored)
    if stored:
        assert services.asked(STORE).body["documents"] == stored


async def test_without_any_embedding_there_is_nothing_to_store(
    gateway: Gateway, services: Services
) -> None:
    services.answers[EMBED] = problem(503)
    answer = await run(gateway)
    assert statuses(answer) == {
        "embed_query": "error",
        "local_inference": "ok",
        "search": "skipped",
        "chat": "ok",
        "embed_answer": "error",
        "store": "skipped",
    }
    assert answer["results"]["embeddings"] is None
    assert STORE not in services.calls()


@pytest.mark.parametrize(
    ("chat", "local", "status"),
    [
        (problem(503, "no disk"), problem(503, "no memory"), 503),
        (problem(429, "no disk"), problem(429, "no memory"), 429),
        (problem(503, "no disk"), problem(504, "no memory"), 502),
        (problem(500, "no disk"), problem(429, "no memory"), 502),
        (problem(400, "no disk"), problem(422, "no memory"), 422),
        (problem(400, "no disk"), problem(429, "no memory"), 429),
    ],
)
async def test_when_no_model_answers_the_call_is_an_error_that_names_both(
    chat: Response, local: Response, status: int, gateway: Gateway, services: Services
) -> None:
    services.answers = {CHAT: chat, GENERATE: local}
    response = await gateway.post("/full-pipeline", {"query": QUERY})
    detail = response.json()["detail"]
    assert (response.status_code, response.json()["code"]) == (status, "pipeline_failed")
    assert all(words in detail for words in ("local_inference: ", "no memory", "chat: ", "no disk"))
    assert gateway.recorded.span(WORKFLOW).status.status_code is StatusCode.ERROR


async def test_a_busy_pipeline_says_when_to_come_back(gateway: Gateway, services: Services) -> None:
    services.answers = {
        CHAT: problem(429, "busy", **{"Retry-After": "3"}),
        GENERATE: problem(429, "busy", **{"Retry-After": "7"}),
    }
    response = await gateway.post("/full-pipeline", {"query": QUERY})
    assert response.status_code == 429
    assert response.headers.get("retry-after") in ("3", "7")


async def test_a_pipeline_out_of_time_asks_nobody(gateway: Gateway, services: Services) -> None:
    response = await gateway.post(
        "/full-pipeline", {"query": QUERY}, headers={"X-Request-Timeout": "0"}
    )
    assert (response.status_code, services.requests) == (504, [])


# The sums


async def test_the_summary_counts_what_the_stages_took(gateway: Gateway) -> None:
    answer = await run(gateway)
    summary = answer["summary"]
    assert summary.pop("total_duration_seconds") > 0
    assert summary == {
        "total_cost_usd": pytest.approx(0.25 + 0.5 + 0.5),
        "steps_completed": len(STAGES),
        "openai_tokens_used": 25 + 3 + 3,
        "local_tokens_generated": 7,
        "documents_stored": 2,
        "search_results_found": 2,
    }
    embeddings = answer["results"]["embeddings"]
    assert embeddings["embeddings_created"] == 2
    assert embeddings["metadata"]["cost_usd"] == pytest.approx(1.0)
    assert embeddings["metadata"]["usage"]["total_tokens"] == 6


@pytest.mark.parametrize(
    ("costs", "total"),
    [
        ({CHAT: "0.25", EMBED: "0.5"}, 1.25),
        ({CHAT: "0", EMBED: "0"}, 0),
        ({CHAT: "0.25"}, None),
        ({EMBED: "0.5"}, None),
        ({}, None),
    ],
)
async def test_a_sum_with_an_unknown_cost_is_unknown(
    costs: dict[str, str], total: float | None, gateway: Gateway, services: Services
) -> None:
    services.costs = costs
    answer = await run(gateway)
    assert answer["summary"]["total_cost_usd"] == total
    assert attributes(gateway.recorded.span(WORKFLOW)).get(schema.COST_USD) == total


async def test_what_the_local_model_costs_is_in_the_sum(
    gateway: Gateway, services: Services
) -> None:
    services.costs = {CHAT: "0.25", EMBED: "0.5"}
    local = generated({})
    local["metadata"]["cost_usd"] = 0.125
    services.answers[GENERATE] = Response(200, json=local)
    answer = await run(gateway)
    assert answer["results"]["local_model_response"]["metadata"]["cost_usd"] == 0.125
    assert answer["summary"]["total_cost_usd"] == 1.375
    assert attributes(gateway.recorded.span(WORKFLOW))[schema.COST_USD] == 1.375


async def test_a_failed_stage_costs_nothing(gateway: Gateway, services: Services) -> None:
    services.answers[CHAT] = problem(503)
    answer = await run(gateway)
    assert answer["summary"]["total_cost_usd"] == 0.5
    assert answer["summary"]["openai_tokens_used"] == 3


# Telemetry


async def test_all_of_it_is_one_trace_below_the_workflow(gateway: Gateway) -> None:
    answer = await run(gateway)
    [server] = gateway.recorded.spans(SpanKind.SERVER)
    workflow = gateway.recorded.span(WORKFLOW)
    calls = gateway.recorded.spans(SpanKind.CLIENT)
    assert workflow.parent == identity(server)
    assert [call.parent for call in calls] == [identity(workflow)] * len(STAGES)
    assert {attributes(call)[schema.PIPELINE_STAGE] for call in calls} == set(STAGES)
    assert answer["trace_id"] == f"{identity(server).trace_id:032x}"
    assert attributes(workflow)[schema.PIPELINE_STEPS] == 6
    assert workflow.events == ()


async def test_each_stage_is_measured_with_its_outcome(
    gateway: Gateway, services: Services
) -> None:
    services.answers[CHAT] = problem(503)
    answer = await run(gateway)
    points = gateway.recorded.points(schema.PIPELINE_STAGE_DURATION.name)
    assert {str(point.labels["stage"]): point.labels["status"] for point in points} == statuses(
        answer
    )


@pytest.mark.parametrize("stage", STAGES)
async def test_a_failed_stage_is_an_event_of_the_workflow(
    stage: str, gateway: Gateway, services: Services
) -> None:
    fail(services, stage, problem(503, "the disk is full"))
    await run(gateway)
    [event] = gateway.recorded.span(WORKFLOW).events
    assert event.name == schema.EVENT_STAGE_FAILED
    assert dict(event.attributes or {}) == {
        schema.PIPELINE_STAGE: stage,
        schema.STAGE_ERROR: "the disk is full",
    }
