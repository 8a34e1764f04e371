import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from deploy.local.parts import internal_token
from tests.support import openai_standin
from tests.support.llm import gateway as gateway_before
from tests.support.llm import llm_proxy, provider
from tests.support.openai_standin import Standin, Step
from tests.support.processes import ROOT, Service, environment, free_ports

PORTS = (
    "GATEWAY_PORT",
    "LLM_PROXY_PORT",
    "VECTOR_SVC_PORT",
    "INFERENCE_SVC_PORT",
    "OTLP_PORT",
    "TEMPO_PORT",
)


@dataclass(frozen=True)
class EmbeddedStack:
    """The stack `make up` starts, on ports and in a folder of its own."""

    folder: Path
    ports: dict[str, int]

    def url(self, variable: str) -> str:
        return f"http://127.0.0.1:{self.ports[variable]}"

    @property
    def token(self) -> str:
        """The token that the services behind the gateway ask for."""
        return internal_token(self.folder)

    @property
    def tempo(self) -> str:
        return self.url("TEMPO_PORT")

    def command(self, word: str, **extra: str) -> subprocess.CompletedProcess[str]:
        settings = {
            "O11Y_STATE_DIR": str(self.folder),
            **{name: str(number) for name, number in self.ports.items()},
            **extra,
        }
        return subprocess.run(
            [sys.executable, "-m", "deploy.local", word],
            cwd=ROOT,
            env=environment(settings),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )


def new_stack(folder: Path) -> EmbeddedStack:
    return EmbeddedStack(folder, dict(zip(PORTS, free_ports(len(PORTS)), strict=True)))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    started = new_stack(tmp_path_factory.mktemp("stack"))
    up = started.command("up")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        yield started
    finally:
        down = started.command("down")
        assert down.returncode == 0, down.stdout + down.stderr
        assert "killed" not in down.stdout


@pytest.fixture(scope="session")
def gateway(stack: EmbeddedStack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=stack.url("GATEWAY_PORT"), timeout=90) as client:
        yield client


@pytest.fixture(scope="session")
def standin() -> Iterator[Standin]:
    """The stand-in for OpenAI behind `edge`."""
    with openai_standin.running() as started:
        yield started


@pytest.fixture(scope="session")
def edge(standin: Standin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of OpenAI's API at a gateway and a llm-proxy that ask the stand-in."""
    folder = tmp_path_factory.mktemp("edge")
    with (
        llm_proxy(folder, provider("openai", standin)) as llm,
        gateway_before(folder, llm) as started,
    ):
        yield f"{started.url}/v1"


@pytest.fixture(scope="session")
def pair() -> Iterator[tuple[Standin, Standin]]:
    """The providers behind `patient`, in their order."""
    with openai_standin.running() as first, openai_standin.running() as second:
        yield first, second


@pytest.fixture
def standins(pair: tuple[Standin, Standin]) -> Iterator[tuple[Standin, Standin]]:
    """The same; what a test makes them answer ends with it."""
    yield pair
    for standin in pair:
        standin.default = Step()


@pytest.fixture(scope="session")
def patient(
    pair: tuple[Standin, Standin], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """llm-proxy that waits for its two providers as long as the caller waits for it."""
    first, second = (
        provider(name, standin, breaker_failures=1000)
        for name, standin in zip(("first", "second"), pair, strict=True)
    )
    first["embedding_model"] = "text-embedding-3-small"
    with llm_proxy(tmp_path_factory.mktemp("patient"), first, second) as running:
        yield running


@pytest.fixture(scope="session")
def urls(patient: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where `patient` is reached: directly, and through a gateway."""
    with gateway_before(tmp_path_factory.mktemp("gateway"), patient) as running:
        yield {"llm-proxy": patient.url, "gateway": running.url}


@pytest.fixture(scope="session", autouse=True)
def offline() -> None:
    """Nothing here may reach for a hub: what a test needs is in packages."""
    os.environ["HF_HUB_OFFLINE"] = "1"
