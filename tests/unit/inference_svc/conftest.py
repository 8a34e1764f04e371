"""A language model small enough to make on the spot: random weights, whole words as tokens."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import openai
import pytest
import torch
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from inference_svc import model
from inference_svc.app import build
from inference_svc.device import Device
from inference_svc.engine import Engine, EngineLimits
from inference_svc.model import LanguageModel
from inference_svc.settings import Settings
from o11y.telemetry import Telemetry

WORDS = 64
LIMITS = EngineLimits(
    max_context=64, max_requests=8, max_batch_tokens=128, cache_blocks=16, max_waiting=8
)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    vocabulary = {"<eos>": 0, **{f"w{index}": index for index in range(1, WORDS)}}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<eos>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>"
    ).save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def language_model(model_folder: Path) -> LanguageModel:
    return model.load(str(model_folder), Device("cpu", torch.float32), Path("unused"))


@pytest.fixture
async def engine(language_model: LanguageModel) -> AsyncIterator[Engine]:
    engine = Engine(language_model, LIMITS)
    engine.start()
    yield engine
    await engine.stop()


class Service:
    """The service in process with the tiny model, and the spans it ended."""

    def __init__(self, folder: Path) -> None:
        self.spans = InMemorySpanExporter()
        settings = Settings(local_model_name=str(folder), engine_max_context=64)
        self.telemetry = Telemetry("inference-svc", settings, [SimpleSpanProcessor(self.spans)])
        self.app = build(settings, self.telemetry)
        transport = httpx2.ASGITransport(self.app)
        self.http = httpx2.AsyncClient(transport=transport, base_url="http://inference-svc")


@pytest.fixture
async def service(model_folder: Path) -> AsyncIterator[Service]:
    service = Service(model_folder)
    async with service.app.router.lifespan_context(service.app), service.http:
        yield service


@pytest.fixture
def client(service: Service) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url="http://inference-svc/v1", api_key="none", http_client=service.http, max_retries=0
    )
