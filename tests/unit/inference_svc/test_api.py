from pathlib import Path
from typing import Any

import openai
import pytest
from transformers import PreTrainedTokenizerFast

from tests.support import tiny_model
from tests.unit.inference_svc.conftest import Service


async def test_the_openai_sdk_gets_an_answer_with_usage(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "w1 w2"}], max_tokens=4, n=2
    )
    assert len(answer.choices) == 2
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_the_openai_sdk_gets_embeddings_in_both_encodings(
    client: openai.AsyncOpenAI,
) -> None:
    name = "all-MiniLM-L6-v2"
    packed = await client.embeddings.create(model=name, input="a span")
    plain = await client.embeddings.create(model=name, input=["a span"], encoding_format="float")
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, rel=1e-5)
    assert len(plain.data[0].embedding) == 384
    assert plain.usage.total_tokens == 4


async def test_models_are_listed_with_their_kind(client: openai.AsyncOpenAI) -> None:
    listed = await client.models.list()
    assert {model.id for model in listed.data} == {"tiny", "all-MiniLM-L6-v2"}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "w1"}], "max_tokens": 2}


@pytest.mark.parametrize(
    ("extra", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"model": "all-MiniLM-L6-v2"}, 404, "model"),
        ({"messages": []}, 422, "messages"),
        ({"stream": "perhaps"}, 422, "stream"),
        ({"top_p": 0}, 422, "top_p"),
        ({"top_p": 1.1}, 422, "top_p"),
        ({"top_k": 0}, 422, "top_k"),
        ({"seed": 2**63}, 422, "seed"),
        ({"presence_penalty": 1}, 422, "presence_penalty"),
        ({"tools": [{"type": "function"}]}, 422, "tools"),
        ({"response_format": {"type": "json_object"}}, 422, "response_format"),
        ({"temperature": 3}, 422, "temperature"),
        ({"stop": ["a"] * 17}, 422, "stop"),
        ({"stop": "a" * 257}, 422, "stop"),
        ({"stop": [""]}, 422, "stop"),
        ({"stop": False}, 422, "stop"),
        ({"stop": [7]}, 422, "stop"),
        ({"max_tokens": 500}, 422, "prompt"),
        ({"logit_bias": {"5": 100}}, 422, "logit_bias"),
        ({"functions": [{"name": "f"}]}, 422, "functions"),
        ({"function_call": {"name": "f"}}, 422, "function_call"),
        ({"tool_choice": "required"}, 422, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, 422, "tool_choice"),
        ({"modalities": ["text", "audio"]}, 422, "modalities"),
        ({"audio": {"voice": "ash", "format": "wav"}}, 422, "audio"),
        ({"prediction": {"type": "content", "content": "x"}}, 422, "prediction"),
        ({"top_logprobs": 3}, 422, "top_logprobs"),
        ({"reasoning_effort": "high"}, 422, "reasoning_effort"),
        ({"web_search_options": {}}, 422, "web_search_options"),
        ({"min_p": 0.1}, 422, "min_p"),
        ({"repetition_penalty": 1.2}, 422, "repetition_penalty"),
        ({"messages": [{"role": "user", "content": None}]}, 422, "messages.0"),
        ({"messages": [{"role": "tool", "tool_call_id": "1"}]}, 422, "messages.0"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, 422, "messages.0.content"),
        ({"messages": [{"role": "nobody", "content": "w1"}]}, 422, "messages.0.role"),
        ({"model": "m" * 257}, 422, "model"),
    ],
)
async def test_what_the_engine_cannot_do_is_refused_by_name(
    service: Service, extra: dict[str, Any], status: int, param: str
) -> None:
    answer = await service.http.post("/v1/chat/completions", json={**CHAT, **extra})
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == param


async def test_parameters_that_change_nothing_are_taken(service: Service) -> None:
    neutral: dict[str, Any] = {
        "top_p": 1,
        "top_k": None,
        "presence_penalty": 0,
        "stream": False,
        "tools": [],
        "user": "ada",
        "temperature": None,
        "n": None,
        "max_completion_tokens": None,
        "stop": None,
        "seed": None,
        "stream_options": None,
        "logit_bias": {},
        "tool_choice": "auto",
        "functions": None,
        "function_call": "none",
        "parallel_tool_calls": True,
        "modalities": ["text"],
        "top_logprobs": None,
        "metadata": {"topic": "w1"},
        "store": False,
    }
    answer = await service.http.post("/v1/chat/completions", json={**CHAT, **neutral})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("extra", "status", "param"),
    [
        ({"prompt": None}, 422, "prompt"),
        ({"prompt": ""}, 422, "prompt"),
        ({"prompt": ["w1"]}, 422, "prompt"),
        ({"echo": True}, 422, "echo"),
        ({"best_of": 3}, 422, "best_of"),
        ({"best_of": 3, "n": 2}, 422, "best_of"),
        ({"suffix": "w3"}, 422, "suffix"),
        ({"logprobs": 2}, 422, "logprobs"),
        ({"echo": False, "best_of": 2, "n": 2, "suffix": None, "logprobs": None}, 200, None),
        ({"best_of": 1, "temperature": None, "n": None, "stream": None}, 200, None),
    ],
)
async def test_completions_refuse_by_name_too(
    service: Service, extra: dict[str, Any], status: int, param: str | None
) -> None:
    body = {"prompt": "w1", "max_tokens": 2, **extra}
    answer = await service.http.post("/v1/completions", json=body)
    assert answer.status_code == status
    if param:
        assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("extra", "status", "param"),
    [
        ({"encoding_format": None, "dimensions": None, "user": None}, 200, None),
        ({"encoding_format": "hex"}, 422, "encoding_format"),
        ({"input": ""}, 422, "input"),
        ({"input": ["w1", ""]}, 422, "input"),
        ({"input": [1, 2]}, 422, "input"),
        ({"dimensions": 8}, 400, "dimensions"),
        ({"input": ["1 " * 9000]}, 422, "input"),
    ],
)
async def test_embeddings_name_the_field_at_fault(
    service: Service, extra: dict[str, Any], status: int, param: str | None
) -> None:
    answer = await service.http.post("/v1/embeddings", json={"input": "w1", **extra})
    assert answer.status_code == status
    if param:
        assert answer.json()["error"]["param"].startswith(param)
        assert "constrained" not in answer.text


CALL = {"id": "1", "type": "function", "function": {"name": "w2", "arguments": "w3"}}


@pytest.mark.parametrize(
    "turn",
    [
        {"content": None, "tool_calls": [CALL]},
        {"tool_calls": [CALL]},
        {"content": "w4", "tool_calls": [CALL]},
        {"content": None, "function_call": CALL["function"]},
        {"tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "w2", "input": "w3"}}]},
        {"tool_calls": [{"id": "1", "type": "of tomorrow", "of_tomorrow": {}}]},
        {"tool_calls": None, "content": []},
        {"content": [{"type": "refusal", "refusal": "w5"}]},
        {"content": None, "refusal": "w5"},
        {"content": None},
    ],
)
async def test_turns_of_other_models_are_read(service: Service, turn: dict[str, Any]) -> None:
    messages = [
        {"role": "user", "content": "w1"},
        {"role": "assistant", **turn},
        {"role": "tool", "tool_call_id": "1", "content": "w6"},
        {"role": "developer", "content": [{"type": "text", "text": "w7"}]},
    ]
    answer = await service.http.post("/v1/chat/completions", json={**CHAT, "messages": messages})
    assert answer.status_code == 200, answer.text


async def test_messages_that_the_chat_template_refuses_are_the_callers_fault(
    tmp_path: Path,
) -> None:
    folder = tiny_model.save(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.chat_template = "{{ raise_exception('Conversation roles must alternate') }}"
    tokenizer.save_pretrained(folder)
    service = Service(folder)
    async with service.app.router.lifespan_context(service.app), service.http:
        for stream in (False, True):
            body = {**CHAT, "stream": stream}
            answer = await service.http.post("/v1/chat/completions", json=body)
            error = answer.json()["error"]
            assert (answer.status_code, error["param"]) == (400, "messages")
            assert error["message"].endswith("Conversation roles must alternate")


async def test_a_generation_is_a_span_with_its_work(service: Service) -> None:
    body = {"prompt": "w1 w2 w3", "max_length": 4, "num_sequences": 2, "temperature": 0}
    answer = (await service.http.post("/local-inference", json=body)).json()
    generation, server = service.spans.get_finished_spans()
    assert generation.name == "text_completion tiny"
    assert generation.parent == server.context
    assert generation.attributes is not None
    usage = answer["metadata"]["usage"]
    assert generation.attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"] == 3
    assert generation.attributes["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert generation.attributes["gen_ai.request.choice.count"] == 2
    assert generation.attributes["model.name"] == "tiny"


async def test_a_span_says_how_tokens_were_drawn(service: Service) -> None:
    asked = {"top_p": 0.5, "top_k": 3, "seed": -7, "stop": ["w5", "w6"]}
    answer = await service.http.post("/v1/completions", json={"prompt": "w1", **asked})
    assert answer.status_code == 200
    generation, _ = service.spans.get_finished_spans()
    assert generation.attributes is not None
    names = {"top_p": "top_p", "top_k": "top_k", "seed": "seed", "stop_sequences": "stop"}
    for name, field in names.items():
        value = generation.attributes[f"gen_ai.request.{name}"]
        assert (list(value) if isinstance(value, tuple) else value) == asked[field]


async def test_what_was_not_asked_for_is_not_on_the_span(service: Service) -> None:
    await service.http.post("/v1/completions", json={"prompt": "w1", "max_tokens": 1})
    generation, _ = service.spans.get_finished_spans()
    assert generation.attributes is not None
    unasked = ("top_p", "top_k", "seed", "stop_sequences")
    assert not {f"gen_ai.request.{name}" for name in unasked} & set(generation.attributes)


@pytest.mark.parametrize(
    ("path", "body", "texts"),
    [
        ("/v1/completions", {"prompt": "w1 w2", "n": 3, "max_tokens": 12}, "choices"),
        (
            "/local-inference",
            {"prompt": "w1 w2", "num_sequences": 3, "max_length": 12},
            "generated_texts",
        ),
    ],
)
async def test_a_seed_gives_the_same_choices_again_each_its_own(
    service: Service, path: str, body: dict[str, Any], texts: str
) -> None:
    asked = {**body, "temperature": 1, "top_p": 0.95, "top_k": 40, "seed": 11}
    first, again = [(await service.http.post(path, json=asked)).json()[texts] for _ in range(2)]
    other = (await service.http.post(path, json={**asked, "seed": 12})).json()[texts]
    said = [
        [each if isinstance(each, str) else each["text"] for each in one]
        for one in (first, again, other)
    ]
    assert said[0] == said[1] != said[2]
    assert len(set(said[0])) == 3


async def test_a_refused_generation_is_an_error_span(service: Service) -> None:
    await service.http.post("/local-inference", json={"prompt": "w1", "max_length": 100})
    generation, server = service.spans.get_finished_spans()
    assert not generation.status.is_ok
    assert generation.attributes is not None
    assert generation.attributes["error.type"] == "context_length_exceeded"
    assert server.status.is_ok


async def test_health_names_model_and_device(service: Service) -> None:
    health = (await service.http.get("/health")).json()
    assert (health["status"], health["model_name"]) == ("available", "tiny")
    assert (await service.http.get("/stats")).json()["context_window"] == 64
