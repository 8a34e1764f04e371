"""llm-proxy, and a gateway before it, as processes in front of stand-ins for providers."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.support import tiny_model
from tests.support.openai_standin import Standin, Step, scripted
from tests.support.processes import Service, free_ports, service

KEY = "sk-planted-secret"
"""The providers' credentials: they may be in no answer and in no log."""

NO_EXPORT = {
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
}


def exports_to(otlp: str) -> dict[str, str]:
    """Settings of a service whose traces go to a store at once, and nothing else anywhere."""
    return {
        **NO_EXPORT,
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


def provider(name: str, standin: Standin, **settings: Any) -> dict[str, Any]:
    """An entry of LLM_PROVIDERS: the stand-in with OpenAI's prices."""
    address = {"name": name, "base_url": standin.url, "api_key": KEY, "pricing": "openai"}
    return {**address, **settings}


@contextmanager
def tiny_inference(folder: Path, **settings: str) -> Iterator[Service]:
    """inference-svc with a tiny model that generates as many tokens as it may, on the CPU."""
    with service(
        "inference_svc",
        folder,
        LOCAL_MODEL_NAME=str(tiny_model.save(folder / "tiny", 1024, ends=False)),
        USE_GPU="false",
        ENGINE_MAX_CONTEXT="1024",
        **settings,
    ) as running:
        yield running


@contextmanager
def llm_proxy(folder: Path, *providers: dict[str, Any], **settings: str) -> Iterator[Service]:
    """llm-proxy with these providers; `settings` replace that it exports nothing."""
    listed = json.dumps(providers)
    with service("llm_proxy", folder, LLM_PROVIDERS=listed, **{**NO_EXPORT, **settings}) as running:
        yield running


@contextmanager
def gateway(folder: Path, llm: Service, **settings: str) -> Iterator[Service]:
    """A gateway that has nothing behind it but llm-proxy, and what `settings` name."""
    vectors, inference = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    alone = {"VECTOR_URL": vectors, "INFERENCE_URL": inference, "SEED_CORPUS": "false"}
    with service(
        "gateway", folder, LLM_PROXY_URL=llm.url, **{**alone, **NO_EXPORT, **settings}
    ) as running:
        yield running


@dataclass(frozen=True)
class Call:
    """A request to llm-proxy that stand-ins know by its id."""

    id: str
    path: str
    body: dict[str, Any]

    @property
    def script(self) -> dict[str, Any]:
        """What of its body only a stand-in reads."""
        return {"standin": self.body["standin"]}


def chat(*steps: Step, **fields: Any) -> Call:
    """A call that plays these steps; without any the stand-ins play their own."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Where is it?"}]}
    return _call("/v1/chat/completions", body, steps, fields)


def complete(*steps: Step, **fields: Any) -> Call:
    body = {"model": "gpt-3.5-turbo-instruct", "prompt": "Once upon a time"}
    return _call("/v1/completions", body, steps, fields)


def embed(*steps: Step, **fields: Any) -> Call:
    body = {"model": "text-embedding-3-small", "input": ["one", "two"]}
    return _call("/v1/embeddings", body, steps, fields)


def _call(path: str, body: dict[str, Any], steps: tuple[Step, ...], fields: dict[str, Any]) -> Call:
    name = uuid.uuid4().hex
    return Call(name, path, {**body, **fields, **scripted(name, *steps)})


def post(url: str, call: Call, **headers: str) -> httpx2.Response:
    return httpx2.post(f"{url}{call.path}", json=call.body, headers=headers, timeout=30)
