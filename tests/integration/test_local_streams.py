"""The packaged model's streams, through gateway, llm-proxy and inference-svc as processes."""

import json

import httpx2
import openai

from tests.integration.conftest import EmbeddedStack
from tests.support import tempo

QUESTION = "The capital of France is"


def test_any_openai_client_streams_from_the_local_model(
    gateway: httpx2.Client, stack: EmbeddedStack
) -> None:
    with openai.OpenAI(base_url=f"{stack.url('GATEWAY_PORT')}/v1", api_key="none") as client:
        with client.chat.completions.with_streaming_response.create(
            model="gemma-3-270m",
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        ) as answer:
            trace_id = answer.headers["x-trace-id"]
            chunks = list(answer.parse())
        whole = client.chat.completions.create(
            model="gemma-3-270m",
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=12,
            temperature=0,
        )
    said = "".join(choice.delta.content or "" for each in chunks for choice in each.choices)
    assert said.strip() == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    trace = tempo.wait_for(stack.tempo, trace_id, tempo.whole)
    assert whole.usage is not None
    (call,) = [span for span in trace.spans if span.name == "chat gemma-3-270m"][:1]
    assert call.attributes["gen_ai.usage.output_tokens"] == whole.usage.completion_tokens
    assert {span.service for span in trace.spans} == {"gateway", "llm-proxy", "inference-svc"}
    assert not [span for span in trace.spans if span.error]


def test_local_inference_streams_through_the_gateway(gateway: httpx2.Client) -> None:
    body = {"prompt": QUESTION, "max_length": 8, "temperature": 0}
    whole = gateway.post("/local-inference", json=body).json()
    text, metadata = "", None
    with gateway.stream("POST", "/local-inference", json={**body, "stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                data = json.loads(line.removeprefix("data: "))
                text += data.get("text", "")
                metadata = data
    assert text == whole["generated_texts"][0]
    assert metadata is not None
    assert metadata["usage"] == whole["metadata"]["usage"]


def test_chat_streams_from_the_local_model_at_no_cost(gateway: httpx2.Client) -> None:
    body = {"message": QUESTION, "max_tokens": 8, "temperature": 0, "stream": True}
    with gateway.stream("POST", "/chat", json=body) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-2] == "event: metadata"
    metadata = json.loads(lines[-1].removeprefix("data: "))
    assert metadata["cost_usd"] == 0
    assert 1 <= metadata["usage"]["completion_tokens"] <= 8
