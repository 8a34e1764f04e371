import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.processes import ROOT, environment, free_ports

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


@pytest.fixture(scope="session", autouse=True)
def offline() -> None:
    """Nothing here may reach for a hub: what a test needs is in packages."""
    os.environ["HF_HUB_OFFLINE"] = "1"
