"""Traces read back through Tempo's API: connected, complete, attributed."""

import itertools

import httpx2
import pytest

from tests.integration.conftest import EmbeddedStack
from tests.support import tempo

PIPELINE = {
    "query": "How is a secret kept?",
    "max_tokens": 4,
    "seed": 7,
    "user_id": "grace",
    "session_id": "session-7",
}


@pytest.fixture(scope="module")
def pipeline(stack: EmbeddedStack, gateway: httpx2.Client) -> tempo.Trace:
    answer = gateway.post("/full-pipeline", json=PIPELINE).json()
    return tempo.wait_for(stack.tempo, answer["trace_id"], tempo.whole)


WORKFLOW = "invoke_workflow full-pipeline"
CHAT = "chat gemma-3-270m"
EMBED = "embeddings all-MiniLM-L6-v2"

EDGES = [
    ("gateway", "POST /full-pipeline", "gateway", WORKFLOW),
    ("gateway", WORKFLOW, "gateway", "POST /v1/embeddings"),
    ("gateway", "POST /v1/embeddings", "llm-proxy", "POST /v1/embeddings"),
    ("llm-proxy", "POST /v1/embeddings", "llm-proxy", EMBED),
    ("llm-proxy", EMBED, "llm-proxy", "POST /v1/embeddings"),
    ("llm-proxy", "POST /v1/embeddings", "inference-svc", "POST /v1/embeddings"),
    ("inference-svc", "POST /v1/embeddings", "inference-svc", EMBED),
    ("gateway", WORKFLOW, "gateway", "POST /local-inference"),
    ("gateway", "POST /local-inference", "inference-svc", "POST /local-inference"),
    (
        "inference-svc",
        "POST /local-inference",
        "inference-svc",
        "text_completion gemma-3-270m",
    ),
    ("gateway", WORKFLOW, "gateway", "POST /search"),
    ("gateway", "POST /search", "vector-svc", "POST /search"),
    ("vector-svc", "POST /search", "vector-svc", "retrieval documents"),
    ("gateway", WORKFLOW, "gateway", "POST /v1/chat/completions"),
    ("gateway", "POST /v1/chat/completions", "llm-proxy", "POST /v1/chat/completions"),
    ("llm-proxy", "POST /v1/chat/completions", "llm-proxy", CHAT),
    ("llm-proxy", CHAT, "llm-proxy", "POST /v1/chat/completions"),
    ("llm-proxy", "POST /v1/chat/completions", "inference-svc", "POST /v1/chat/completions"),
    ("inference-svc", "POST /v1/chat/completions", "inference-svc", CHAT),
    ("gateway", WORKFLOW, "gateway", "POST /documents"),
    ("gateway", "POST /documents", "vector-svc", "POST /documents"),
    ("vector-svc", "POST /documents", "vector-svc", "upsert documents"),
]


@pytest.mark.parametrize(
    "edge", EDGES, ids=lambda edge: f"{edge[0]} {edge[1]} → {edge[2]} {edge[3]}"
)
def test_a_pipeline_call_has_the_edge(
    pipeline: tempo.Trace, edge: tuple[str, str, str, str]
) -> None:
    assert edge in pipeline.edges()


def test_a_pipeline_call_has_no_other_edges(pipeline: tempo.Trace) -> None:
    assert pipeline.edges() == set(EDGES)


def test_a_pipeline_call_is_one_trace_through_four_services(pipeline: tempo.Trace) -> None:
    assert {span.service for span in pipeline.spans} == {
        "gateway",
        "llm-proxy",
        "vector-svc",
        "inference-svc",
    }
    assert not [span for span in pipeline.spans if span.error]


def test_every_hop_is_one_client_and_one_server_span(pipeline: tempo.Trace) -> None:
    servers = [span for span in pipeline.spans if span.kind == "SERVER"]
    parents = [pipeline.parent(span) for span in servers]
    assert [parent.kind for parent in parents if parent] == ["CLIENT"] * (len(servers) - 1)


def test_every_span_says_who(pipeline: tempo.Trace) -> None:
    for span in pipeline.spans:
        assert span.attributes["user.id"] == span.attributes["user_id"] == "grace", span.name
        assert span.attributes["session.id"] == "session-7", span.name
        assert "gen_ai.conversation.id" not in span.attributes, span.name


def test_the_generation_span_says_what_it_took(pipeline: tempo.Trace) -> None:
    attributes = pipeline.one("inference-svc", "text_completion gemma-3-270m").attributes
    assert attributes["gen_ai.usage.output_tokens"] == 4
    assert attributes["llm.usage.completion_tokens"] == 4
    assert attributes["model.parameters"] == 268_098_176
    assert attributes["model.device"] == "cpu"
    assert attributes["tokens_per_second"] > 0
    assert 0 < attributes["batch_efficiency"] <= 1
    assert attributes["o11y.batch.steps"] >= 4


def test_the_llm_span_says_what_it_cost(pipeline: tempo.Trace) -> None:
    attributes = pipeline.one("llm-proxy", CHAT).attributes
    assert attributes["o11y.cost.usd"] == 0
    assert attributes["gen_ai.provider.name"] == "o11y-local"
    assert attributes["gen_ai.usage.input_tokens"] > 4


def test_stages_run_in_the_design_s_order(pipeline: tempo.Trace) -> None:
    def stage(name: str) -> tempo.Span:
        (found,) = (
            span for span in pipeline.spans if span.attributes.get("o11y.pipeline.stage") == name
        )
        return found

    in_turn = [stage(name) for name in ("embed_query", "search", "chat", "embed_answer", "store")]
    for before, after in itertools.pairwise(in_turn):
        assert before.end <= after.start
    assert stage("local_inference").start < in_turn[0].end


def test_no_prompt_is_in_a_span(stack: EmbeddedStack, gateway: httpx2.Client) -> None:
    answer = gateway.post("/full-pipeline?query=swordfish+opens+it&max_tokens=2&seed=7").json()
    trace = tempo.wait_for(stack.tempo, answer["trace_id"], tempo.whole)
    assert "swordfish" not in str([span.attributes for span in trace.spans])


def test_an_incoming_trace_is_continued_and_its_baggage_dropped(
    stack: EmbeddedStack, gateway: httpx2.Client
) -> None:
    trace_id, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    headers = {"traceparent": f"00-{trace_id}-{parent}-01", "baggage": "user.id=mallory"}
    answer = gateway.post("/search", json={"query": "baggage"}, headers=headers)
    assert answer.headers["x-trace-id"] == trace_id
    trace = tempo.wait_for(
        stack.tempo, trace_id, lambda trace: ("gateway", "POST /search") in trace.names()
    )
    (root,) = (span for span in trace.spans if span.kind == "SERVER" and span.service == "gateway")
    assert root.parent_id == parent
    assert "mallory" not in str([span.attributes for span in trace.spans])


def test_a_refused_call_is_a_short_trace_without_an_error(
    stack: EmbeddedStack, gateway: httpx2.Client
) -> None:
    answer = gateway.post("/chat", json={"message": ""})
    trace = tempo.wait_for(stack.tempo, answer.headers["x-trace-id"], tempo.whole)
    (span,) = trace.spans
    assert (span.name, span.error) == ("POST /chat", False)
    assert span.attributes["http.response.status_code"] == 422


def test_health_probes_leave_no_traces(stack: EmbeddedStack, gateway: httpx2.Client) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        answer = gateway.get(path)
        assert answer.status_code == 200
        assert "x-trace-id" not in answer.headers


def test_a_search_finds_calls_by_user(stack: EmbeddedStack, pipeline: tempo.Trace) -> None:
    query = '{ span.user.id = "grace" && resource.service.name = "inference-svc" }'
    found = httpx2.get(f"{stack.tempo}/api/search", params={"q": query}).json()["traces"]
    assert [trace["rootTraceName"] for trace in found] == ["POST /full-pipeline"]
