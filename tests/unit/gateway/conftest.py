from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from o11y.settings import ServiceSettings
from tests.support.gateway_services import Gateway, Services
from tests.support.recorded import Lines, Recorded, bare_machine, log_lines


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare_machine(monkeypatch, tmp_path)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    gateway = Gateway()
    yield gateway
    await gateway.close()


@pytest.fixture
def services(gateway: Gateway) -> Services:
    return gateway.services


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded("thing-svc", ServiceSettings(app_port=8000))
    yield recorded
    recorded.telemetry.shutdown()


@pytest.fixture
def lines() -> Iterator[Lines]:
    with log_lines() as read:
        yield read
