"""The gateway's database on a real PostgreSQL, and as a file that several processes share."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import psutil
import pytest

from accounting.database import connect, upgrade
from gateway.keys.directory import KeyDirectory
from gateway.keys.key import parse
from gateway.keys.store import KeyStore
from tests.support import postgres
from tests.support.llm import NO_EXPORT
from tests.support.processes import environment, free_ports, service
from tests.support.waiting import until


@pytest.fixture
def store(url: str) -> Iterator[KeyStore]:
    with closing(KeyStore(connect(url))) as store:
        yield store


def migrate(url: str) -> None:
    engine = connect(url)
    upgrade(engine)
    engine.dispose()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("database")
    with postgres.database(request.param, folder) as found:
        yield found


def test_several_processes_may_migrate_at_once(url: str, store: KeyStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: migrate(url), range(4)))
    assert store.all() == []


def test_a_key_is_found_as_it_was_made(url: str, store: KeyStore) -> None:
    expires = datetime.now(UTC) + timedelta(days=1)
    made, text = store.create("web", "acme", expires_at=expires, models=["modèle"], routes=[])
    assert store.get(made.id) == made
    rotated, again = store.rotate(made.id)
    with closing(KeyStore(connect(url))) as another:
        assert another.get(made.id) == rotated
    for each in (text, again):
        parsed = parse(each)
        assert parsed
        assert rotated.opens(parsed[1], datetime.now(UTC))


async def test_a_directory_knows_what_others_change(url: str, store: KeyStore) -> None:
    directory = KeyDirectory("auto", url)
    _, text = store.create("web", "acme")
    await directory.refresh()
    assert directory.required
    key = directory.authenticate({"x-api-key": [text]})
    await asyncio.to_thread(store.change, key.id, name="front")
    await directory.refresh()
    assert directory.authenticate({"x-api-key": [text]}).name == "front"
    directory.store.close()


def test_the_command_and_the_gateway_share_the_database(url: str, tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    settings = {
        "DATABASE_URL": url,
        "SEED_CORPUS": "false",
        "LLM_PROXY_URL": f"http://127.0.0.1:{nobody}",
        **NO_EXPORT,
    }
    made = subprocess.run(
        [sys.executable, "-m", "gateway.keys", "create", "--name", "web", "--tenant", "acme"],
        cwd=tmp_path,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    headers = {"authorization": f"Bearer {made.stdout.strip()}"}
    with service("gateway", tmp_path, path="/livez", **settings) as gateway:
        until(lambda: httpx2.get(f"{gateway.url}/stats").status_code == 401)
        assert httpx2.get(f"{gateway.url}/v1/models", headers=headers).status_code == 503


def test_a_server_that_hangs_takes_nothing_from_who_is_known(tmp_path: Path) -> None:
    if postgres.programs() is None:
        pytest.skip("needs Debian's postgresql")
    with postgres.postgres(tmp_path) as (url, server):
        with closing(KeyStore(connect(url))) as store:
            _, text = store.create("web", "acme")
        settings = {"DATABASE_URL": url, "SEED_CORPUS": "false", **NO_EXPORT}
        with service("gateway", tmp_path, path="/livez", **settings) as gateway:
            headers = {"authorization": f"Bearer {text}"}
            processes = [psutil.Process(server), *psutil.Process(server).children()]
            for process in processes:
                process.suspend()
            try:
                for _ in range(20):
                    asked = httpx2.get(f"{gateway.url}/openapi.json", headers=headers, timeout=2)
                    assert asked.status_code == 200
            finally:
                for process in processes:
                    process.resume()
