"""The lite stack in real containers, built once and shared by the tests of this folder."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.processes import ROOT, free_ports

BASE, LITE = "docker-compose.yml", "deploy/compose.lite.yml"
BUILD_SECONDS = 1500
UP_SECONDS = 240


def engine_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        if subprocess.run(command, capture_output=True, timeout=30, check=False).returncode:
            return False
    return True


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    if not engine_answers():
        pytest.skip("no Docker engine with Compose answers here")


@dataclass(frozen=True)
class ComposeStack:
    """The stack of some Compose files under a project name and on ports of its own."""

    project: str
    files: tuple[str, ...]
    environment: dict[str, str]

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.environment['GATEWAY_PORT']}"

    @property
    def tempo(self) -> str:
        return f"http://127.0.0.1:{self.environment['TEMPO_PORT']}"

    def compose(self, *words: str, seconds: float = UP_SECONDS) -> str:
        files = [word for file in self.files for word in ("-f", file)]
        done = subprocess.run(
            ["docker", "compose", "-p", self.project, *files, *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"compose {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def up(self, *words: str) -> None:
        self.compose("up", "-d", "--wait", "--wait-timeout", str(UP_SECONDS), *words)

    def containers(self, service: str) -> list[str]:
        """Ids of the service's running containers."""
        return self.compose("ps", "-q", "--status", "running", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        done = subprocess.run(
            ["docker", "inspect", container], capture_output=True, text=True, timeout=30, check=True
        )
        (found,) = json.loads(done.stdout)
        return dict(found)

    def address(self, container: str) -> str:
        """The container's IP address on the stack's network."""
        (network,) = self.inspect(container)["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])


def settings(*ports: str) -> dict[str, str]:
    """Compose's environment: free numbers for `ports`, no key, wheels where they are served."""
    numbers = map(str, free_ports(len(ports)))
    environment = {**os.environ, **dict(zip(ports, numbers, strict=True))}
    environment |= {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}
    if links := os.environ.get("BUILD_FIND_LINKS"):
        environment |= {"PIP_FIND_LINKS": links, "BUILD_NETWORK": "host"}
    return environment


@pytest.fixture(scope="session")
def lite(engine: None) -> Iterator[ComposeStack]:
    environment = settings("GATEWAY_PORT", "TEMPO_PORT")
    stack = ComposeStack("o11y-lite-test", (BASE, LITE), environment)
    with running(stack):
        yield stack


@contextmanager
def running(stack: ComposeStack) -> Iterator[None]:
    """Build the images, start everything, and leave nothing behind."""
    stack.compose("build", seconds=BUILD_SECONDS)
    try:
        stack.up()
        yield
    finally:
        stack.compose("down", "--volumes", "--timeout", "12")


@pytest.fixture
def client(lite: ComposeStack) -> Iterator[httpx2.Client]:
    """One keep-alive client of the gateway."""
    with httpx2.Client(base_url=lite.gateway, timeout=90) as client:
        yield client


@pytest.fixture
def one_of_each(lite: ComposeStack) -> Iterator[Callable[..., None]]:
    """Scales services for a test; afterwards there is one replica of each again."""
    replicas: dict[str, int] = {}

    def scale(**asked: int) -> None:
        replicas.update({name.replace("_", "-"): count for name, count in asked.items()})
        words = [
            word for name, count in replicas.items() for word in ("--scale", f"{name}={count}")
        ]
        lite.up("--no-recreate", *words)

    yield scale
    lite.up("--no-recreate", *scaled(dict.fromkeys(replicas, 1)))


def scaled(replicas: dict[str, int]) -> list[str]:
    """The options of `docker compose up` for so many replicas."""
    return [word for name, count in replicas.items() for word in ("--scale", f"{name}={count}")]


def eventually(check: Callable[[], bool], seconds: float) -> float:
    """Seconds until the check holds; fails when it doesn't in time."""
    started = time.monotonic()
    while not check():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        time.sleep(0.2)
    return time.monotonic() - started
