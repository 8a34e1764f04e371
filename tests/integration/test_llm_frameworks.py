"""What is built upon OpenAI's API against the gateway: langchain, litellm as a client, curl."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["LANGSMITH_TRACING"] = "false"

from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.bench import litellm as benchmarked
from tests.support.openai_standin import Standin, Step, scripted
from tests.support.processes import ROOT

LITELLM = Path(sys.prefix) / "litellm"
"""LiteLLM's environment, beside the one the tests run in."""

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


class LiteLLM:
    """LiteLLM's client, in a process of its own environment."""

    def __init__(self, process: subprocess.Popen[str], edge: str) -> None:
        self._process = process
        self._edge = edge

    def completion(self, **options: Any) -> dict[str, Any]:
        """What came of one call: see `litellm_client.py`."""
        asked = {
            "model": f"openai/{MODEL}",
            "api_base": self._edge,
            "api_key": "anything",
            "max_retries": 0,
            "timeout": 20,
            "messages": [{"role": "user", "content": QUESTION}],
            **options,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "LiteLLM's process has ended: its error output says why"
        found: dict[str, Any] = json.loads(line)
        assert found.pop("elsewhere") == []
        return found


@pytest.fixture(scope="module")
def litellm(edge: str) -> Iterator[LiteLLM]:
    if not benchmarked.version(LITELLM):
        pytest.skip("LiteLLM's environment is missing: `make test` makes it")
    command = [str(LITELLM / "bin" / "python"), str(Path(__file__).with_name("litellm_client.py"))]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield LiteLLM(process, edge)
        assert process.stdin is not None
        process.stdin.close()  # which ends it


def test_litellm_is_of_the_series_that_the_benchmark_compares_with() -> None:
    required = (ROOT / "requirements-litellm.txt").read_text()
    assert f"litellm=={benchmarked.SERIES}." in required


def test_litellm_completes(litellm: LiteLLM, standin: Standin) -> None:
    found = litellm.completion(extra_body=says(TEXT, "litellm"))
    (bill,) = standin.ledger.bills(id="litellm")
    assert found == {"text": TEXT, "tokens": bill.tokens()}


@pytest.mark.parametrize("include_usage", [False, True])
def test_litellm_streams(litellm: LiteLLM, standin: Standin, include_usage: bool) -> None:
    request_id = f"litellm-stream-{include_usage}"
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    found = litellm.completion(stream=True, extra_body=says(TEXT, request_id), **options)
    (bill,) = standin.ledger.bills(id=request_id)
    assert found == {"text": TEXT, "tokens": bill.tokens() if include_usage else None}


def test_litellm_raises_its_own_errors(litellm: LiteLLM) -> None:
    busy = scripted("litellm-busy", Step(status=429, retry_after="20"))
    found = litellm.completion(extra_body=busy, extra_headers={"X-Request-Timeout": "5"})
    assert found == {"error": "litellm.exceptions.RateLimitError"}
    assert litellm.completion(messages=[]) == {"error": "litellm.exceptions.BadRequestError"}


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
