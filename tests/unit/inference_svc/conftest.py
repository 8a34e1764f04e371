"""The tiny model, the engine and the service on it."""

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import openai
import pytest
import torch
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from inference_svc import model
from inference_svc.app import build
from inference_svc.device import Device
from inference_svc.engine import Engine, EngineLimits
from inference_svc.model import LanguageModel
from inference_svc.settings import Settings
from o11y.settings import ServiceSettings
from o11y.telemetry.signals import Telemetry
from tests.support import tiny_model
from tests.support.recorded import Recorded
from tests.support.steered import Steered

LIMITS = EngineLimits(
    max_context=64, max_requests=8, max_batch_tokens=128, cache_blocks=16, max_waiting=8
)


@pytest.fixture(scope="package", autouse=True)
def frozen() -> Iterator[None]:
    """Leaves libraries out of garbage collections: each engine that stops makes one."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def language_model(model_folder: Path) -> LanguageModel:
    return model.load(str(model_folder), Device("cpu", torch.float32), Path("unused"))


@pytest.fixture
def steered(language_model: LanguageModel) -> Steered:
    return Steered(language_model.model)


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded("inference-svc", ServiceSettings(app_port=8083))
    yield recorded
    recorded.telemetry.shutdown()


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
