"""What is built upon OpenAI's API against the gateway: langchain, litellm as a client, curl."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would be fetched while litellm is imported
os.environ["LANGSMITH_TRACING"] = "false"

import litellm
import litellm.exceptions
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.openai_standin import Standin, Step, scripted

MODEL = "gpt-4o-mini"
QUESTION = "Where is the café?"
TEXT = "In 東京 — naïve, but with 🍵."
ARGUMENTS = '{"city": "東京", "days": 3}'


class Place(BaseModel):
    name: str
    seats: int


@tool
def weather(city: str, days: int) -> str:
    """How the weather will be."""
    return f"{days} days of rain in {city}"


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is fetched from elsewhere and nothing is told to anybody."""
    elsewhere: list[Any] = []
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            elsewhere.append(address)
            raise OSError(f"a test wants to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    yield
    assert elsewhere == []


def says(text: str, request_id: str = "framework", **step: Any) -> dict[str, Any]:
    return scripted(request_id, Step(text=text, **step))


def chat(edge: str, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model=MODEL,
        base_url=edge,
        api_key=SecretStr("anything"),
        max_retries=0,
        timeout=20,
        **options,
    )


def test_langchain_invokes(edge: str) -> None:
    answer = chat(edge, extra_body=says(TEXT)).invoke(QUESTION)
    assert answer.content == TEXT
    assert isinstance(answer, AIMessage)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0


async def test_langchain_invokes_asynchronously(edge: str) -> None:
    answer = await chat(edge, extra_body=says(TEXT)).ainvoke(QUESTION)
    assert answer.content == TEXT


def test_langchain_streams(edge: str, standin: Standin) -> None:
    model = chat(edge, extra_body=says(TEXT, "langchain-stream"), stream_usage=True)
    chunks = list(model.stream(QUESTION))
    assert "".join(str(chunk.content) for chunk in chunks) == TEXT
    (bill,) = standin.ledger.bills(id="langchain-stream")
    (usage,) = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert usage["total_tokens"] == bill.tokens()


def test_langchain_calls_a_tool_and_tells_its_result(edge: str) -> None:
    asked = HumanMessage(QUESTION)
    with_tools = chat(edge, extra_body=says(ARGUMENTS)).bind_tools([weather], tool_choice="any")
    answer = with_tools.invoke([asked])
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "東京", "days": 3})
    result = weather.invoke(call)
    assert isinstance(result, ToolMessage)
    last = chat(edge, extra_body=says(TEXT)).invoke([asked, answer, result])
    assert last.content == TEXT


def test_langchain_streams_a_tool_call(edge: str) -> None:
    with_tools = chat(edge, extra_body=says(ARGUMENTS)).bind_tools([weather], tool_choice="any")
    chunks = [part for part in with_tools.stream(QUESTION) if isinstance(part, AIMessageChunk)]
    (call,) = add_ai_message_chunks(*chunks).tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "東京", "days": 3})


def test_langchain_reads_structured_output(edge: str) -> None:
    assert isinstance(chat(edge).with_structured_output(Place).invoke(QUESTION), Place)


def test_langchain_embeds(edge: str) -> None:
    embeddings = OpenAIEmbeddings(
        model="text-embedding-3-small",
        openai_api_base=edge,
        openai_api_key=SecretStr("anything"),
        check_embedding_ctx_length=False,  # it would fetch the tables of a tokenizer
        max_retries=0,
    )
    first, second = embeddings.embed_documents(["one", "two 東京"])
    assert len(first) == len(second) == 1536
    assert embeddings.embed_query("one") == pytest.approx(first, abs=1e-6)


def completion(edge: str, **options: Any) -> Any:
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}], **options}
    return litellm.completion(
        model=f"openai/{MODEL}",
        api_base=edge,
        api_key="anything",
        max_retries=0,
        timeout=20,
        **asked,
    )


def test_litellm_completes(edge: str, standin: Standin) -> None:
    answer = completion(edge, extra_body=says(TEXT, "litellm"))
    (bill,) = standin.ledger.bills(id="litellm")
    assert answer.choices[0].message.content == TEXT
    assert answer.usage.total_tokens == bill.tokens()


@pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning")  # litellm does
@pytest.mark.parametrize("include_usage", [False, True])
def test_litellm_streams(edge: str, standin: Standin, include_usage: bool) -> None:
    request_id = f"litellm-stream-{include_usage}"
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    chunks = list(completion(edge, stream=True, extra_body=says(TEXT, request_id), **options))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    if include_usage:
        (bill,) = standin.ledger.bills(id=request_id)
        assert chunks[-1].usage.total_tokens == bill.tokens()


def test_litellm_raises_its_own_errors(edge: str) -> None:
    busy = scripted("litellm-busy", Step(status=429, retry_after="20"))
    with pytest.raises(litellm.exceptions.RateLimitError):
        completion(edge, extra_body=busy, extra_headers={"X-Request-Timeout": "5"})
    with pytest.raises(litellm.exceptions.BadRequestError):
        completion(edge, messages=[])


def curl(*arguments: str) -> str:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("there is no curl")
    done = subprocess.run(
        [program, "--silent", "--show-error", "--fail-with-body", "--max-time", "20", *arguments],
        capture_output=True,
        timeout=30,
        check=True,
    )
    return done.stdout.decode()


def curl_body(text: str, stream: bool) -> str:
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": MODEL, "messages": messages, "stream": stream, **says(text)}
    return json.dumps(body)


def test_curl(edge: str) -> None:
    url = f"{edge}/chat/completions"
    answer = curl(url, "--json", curl_body(TEXT, stream=False))
    assert TEXT in answer


def test_curl_streams(edge: str) -> None:
    url = f"{edge}/chat/completions"
    answer = curl("-N", "--include", url, "--json", curl_body("one two three", stream=True))
    head, _, events = answer.replace("\r\n", "\n").partition("\n\n")
    assert "content-type: text/event-stream; charset=utf-8" in head.lower().splitlines()
    assert events.startswith("data: {")
    assert events.endswith("data: [DONE]\n\n")
