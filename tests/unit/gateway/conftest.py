from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.gateway_services import Gateway, Services
from tests.support.recorded import Lines, access_lines, bare_machine


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
def lines() -> Iterator[Lines]:
    with access_lines() as read:
        yield read
