"""vector-svc in front of a Chroma server: the same answers, and an end to its patience."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.processes import Service, chroma_server, environment, free_ports, service

STORE = {"documents": ["a", "b"], "embeddings": [[1, 0], [0, 1]], "embedding_model": "m"}
SEARCH = {"embedding": [1, 0], "embedding_model": "m", "n_results": 2}


@pytest.fixture
def chroma(tmp_path: Path) -> Iterator[Service]:
    with chroma_server(tmp_path) as running:
        yield running


@pytest.fixture
def vectors(chroma: Service, tmp_path: Path) -> Iterator[Service]:
    with service("vector_svc", tmp_path, CHROMA_URL=chroma.url) as running:
        yield running


def test_documents_are_stored_and_found(vectors: Service) -> None:
    stored = httpx2.post(f"{vectors.url}/documents", json=STORE).json()
    assert (stored["documents_added"], stored["total_documents"]) == (2, 2)
    again = httpx2.post(f"{vectors.url}/documents", json=STORE).json()
    assert (again["documents_added"], again["total_documents"]) == (0, 2)
    found = httpx2.post(f"{vectors.url}/search", json=SEARCH).json()["results"]
    assert [each["document"] for each in found] == ["a", "b"]
    unread = {**SEARCH, "filter_metadata": {"topic": {"$like": "x"}}}
    assert httpx2.post(f"{vectors.url}/search", json=unread).status_code == 422


def test_a_server_that_hangs_takes_no_longer_than_the_deadline(
    chroma: Service, vectors: Service
) -> None:
    httpx2.post(f"{vectors.url}/documents", json=STORE)
    hurried = {"x-request-timeout": "0.3"}
    chroma.process.send_signal(signal.SIGSTOP)
    try:
        late = [
            httpx2.post(f"{vectors.url}/{path}", json=body, headers=hurried).status_code
            for path, body in (("documents", STORE), ("search", SEARCH), ("documents", STORE))
        ]
    finally:
        chroma.process.send_signal(signal.SIGCONT)
    assert late == [504, 504, 504]
    assert httpx2.post(f"{vectors.url}/documents", json=STORE).status_code == 200


def test_a_server_that_is_gone_is_503(chroma: Service, vectors: Service) -> None:
    httpx2.post(f"{vectors.url}/documents", json=STORE)
    chroma.kill()
    assert httpx2.post(f"{vectors.url}/search", json=SEARCH).status_code == 503
    assert httpx2.get(f"{vectors.url}/readyz").status_code == 503


def answers(vectors: Service) -> list[int]:
    """What every call that needs the collection is answered, a store last."""
    return [
        httpx2.post(f"{vectors.url}/search", json=SEARCH).status_code,
        httpx2.get(f"{vectors.url}/stats").status_code,
        httpx2.get(f"{vectors.url}/readyz").status_code,
        httpx2.post(f"{vectors.url}/documents", json=STORE).status_code,
    ]


def test_a_collection_that_was_removed_is_made_anew(chroma: Service, vectors: Service) -> None:
    httpx2.post(f"{vectors.url}/documents", json=STORE)
    database = f"{chroma.url}/api/v2/tenants/default_tenant/databases/default_database"
    [collection] = httpx2.get(f"{database}/collections").json()
    removed = httpx2.delete(f"{database}/collections/{collection['name']}")
    assert removed.status_code == 200
    assert httpx2.post(f"{vectors.url}/search", json=SEARCH).json()["results"] == []
    assert answers(vectors) == [200] * 4
    found = httpx2.post(f"{vectors.url}/search", json=SEARCH).json()["results"]
    assert [each["document"] for each in found] == ["a", "b"]


def test_a_new_server_in_the_old_ones_place_is_empty(
    chroma: Service, vectors: Service, tmp_path: Path
) -> None:
    httpx2.post(f"{vectors.url}/documents", json=STORE)
    chroma.kill()
    assert answers(vectors) == [503] * 4
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with chroma_server(elsewhere, httpx2.URL(chroma.url).port):
        assert answers(vectors) == [200] * 4
        found = httpx2.post(f"{vectors.url}/search", json=SEARCH).json()["results"]
        assert [each["document"] for each in found] == ["a", "b"]


def test_no_server_is_one_line_and_a_clean_exit(tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    done = subprocess.run(
        [sys.executable, "-m", "vector_svc"],
        cwd=tmp_path,
        env=environment({"CHROMA_URL": f"http://127.0.0.1:{nobody}"}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"vector-svc: CHROMA_URL=http://127.0.0.1:{nobody}/: Could not connect")
