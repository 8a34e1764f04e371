import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from o11y.settings import ServiceSettings
from tests.support.collectors import HttpCollector
from tests.support.recorded import Lines, Recorded, bare_machine, log_lines


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What talks to sockets must work on both loops: services run on uvloop."""
    if item.path.name.startswith("test_transport"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare_machine(monkeypatch, tmp_path)


@pytest.fixture
def settings() -> ServiceSettings:
    return ServiceSettings(app_port=8000)


@pytest.fixture
def recorded(settings: ServiceSettings) -> Iterator[Recorded]:
    recorded = Recorded("thing-svc", settings)
    yield recorded
    recorded.telemetry.shutdown()


@pytest.fixture
def lines() -> Iterator[Lines]:
    with log_lines() as read:
        yield read


@pytest.fixture
def collector() -> Iterator[HttpCollector]:
    collector = HttpCollector()
    yield collector
    collector.stop()


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    root.handlers = handlers
    root.setLevel(level)
