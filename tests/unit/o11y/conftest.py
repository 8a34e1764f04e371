from collections.abc import Iterator
from pathlib import Path

import pytest

from o11y.settings import ServiceSettings
from tests.unit.o11y.recorded import Recorded, bare_machine


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
