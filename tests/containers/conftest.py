"""The lite stack in real containers, built once and shared by the tests of this folder."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import httpx2
import pytest
from docker import DockerClient
from docker.models.containers import Container
from testcontainers.compose import DockerCompose
from testcontainers.core import docker_client

from tests.support.processes import ROOT

BASE, LITE = "docker-compose.yml", "deploy/compose.lite.yml"
BUILD_SECONDS = 1740
STOP_SECONDS = 240
TEST_SECONDS = 600

Containers = Callable[[str], list[Container]]


class Stack(DockerCompose):
    """A Compose project, with what DockerCompose has no method for."""

    @property
    def gateway(self) -> str:
        return self.url("gateway", 8080)

    @property
    def tempo(self) -> str:
        return self.url("trace-store", 3200)

    def url(self, service: str, port: int) -> str:
        """The address under which a port of the service is published; new with every start."""
        host, published = self.get_service_host_and_port(service, port)
        return f"http://{host}:{published}"

    def start(self) -> None:
        try:
            super().start()
        except (subprocess.CalledProcessError, TimeoutError):
            print(*self.get_containers(include_all=True), *self.get_logs(), sep="\n")
            raise

    def scale(self, **replicas: int) -> None:
        """Have so many replicas of these services, and touch no other container."""
        asked = [f"--scale={name.replace('_', '-')}={count}" for name, count in replicas.items()]
        self.command("up", "--wait", "--no-recreate", *asked)

    def command(self, *words: str) -> None:
        subprocess.run([*self.docker_compose_command(), *words], cwd=self.context, check=True)


def engine_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        if subprocess.run(command, capture_output=True, timeout=30, check=False).returncode:
            return False
    return True


@pytest.fixture(scope="session", autouse=True)
def engine() -> Iterator[DockerClient]:
    """The Docker engine; while it is used, SIGTERM ends the tests as Ctrl-C does: tidily."""
    if not engine_answers():
        pytest.skip("no Docker engine with Compose answers here")
    client = docker_client.DockerClient(timeout=60).client
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield client
    signal.signal(signal.SIGTERM, before)
    client.close()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Whatever the block waits for ends with a TimeoutError; testcontainers sets no limits."""

    def too_late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not within {seconds} s")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def limited(engine: DockerClient) -> Iterator[None]:
    with time_limit(TEST_SECONDS):
        yield


@contextmanager
def env_file(folder: Path, **settings: str) -> Iterator[str]:
    """A file of Compose's settings, which nothing in this process's environment overrules."""
    file = folder / "compose.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    with pytest.MonkeyPatch.context() as environment:
        for name in settings:
            environment.delenv(name, raising=False)
        yield str(file)


@contextmanager
def new_stack(folder: Path, project: str, *files: str) -> Iterator[Stack]:
    """The stack of these files, not started: ports that the engine chooses, no key, wheels where
    they are served.
    """
    settings = {"COMPOSE_PROJECT_NAME": project, "OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}
    settings |= dict.fromkeys(("GATEWAY_PORT", "TEMPO_PORT", "GRAFANA_PORT"), "0")
    if links := os.environ.get("BUILD_FIND_LINKS"):
        settings |= {"PIP_FIND_LINKS": links, "BUILD_NETWORK": "host"}
    with env_file(folder, **settings) as file:
        yield Stack(ROOT, list(files), env_file=file)


@contextmanager
def running(stack: Stack) -> Iterator[None]:
    """Build the images, start everything, and leave nothing behind."""
    try:
        with time_limit(BUILD_SECONDS):
            replace(stack, build=True).start()
        yield
    finally:
        with time_limit(STOP_SECONDS):
            stack.stop()


@pytest.fixture(scope="session")
def lite(engine: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("lite")
    with new_stack(folder, "o11y-lite-test", BASE, LITE) as lite, running(lite):
        yield lite


@pytest.fixture
def containers(engine: DockerClient, lite: Stack) -> Containers:
    """The running containers of a service."""

    def of(service: str) -> list[Container]:
        ids = [found.ID for found in lite.get_containers() if found.Service == service]
        return [engine.containers.get(str(one)) for one in ids]

    return of


@pytest.fixture
def client(lite: Stack) -> Iterator[httpx2.Client]:
    """One keep-alive client of the gateway."""
    with httpx2.Client(base_url=lite.gateway, timeout=90) as client:
        yield client


@pytest.fixture
def one_of_each(lite: Stack) -> Iterator[Callable[..., None]]:
    """Scales services for a test; afterwards there is one replica of each again."""
    replicas: dict[str, int] = {}

    def scale(**asked: int) -> None:
        replicas.update(asked)
        lite.scale(**replicas)

    yield scale
    lite.scale(**dict.fromkeys(replicas, 1))
