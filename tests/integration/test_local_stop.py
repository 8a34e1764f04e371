"""inference-svc as a process: how it ends when it is told to, and when its engine is lost."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.support import tiny_model
from tests.support.processes import ROOT, Service, service
from tests.support.stalling_service import HANGS, LOOPS

SECONDS = 60.0


def test_a_stop_finishes_the_streams_that_run_and_refuses_what_is_new(tmp_path: Path) -> None:
    body = {"prompt": "One, two,", "max_tokens": 16, "temperature": 0, "stream": True}
    with service("inference_svc", tmp_path, USE_GPU="false") as running:
        url = f"{running.url}/v1/completions"
        pieces: list[str] = []
        ended = False
        with httpx2.stream("POST", url, json=body, timeout=SECONDS) as answer:
            for line in answer.iter_lines():
                ended = ended or line == "data: [DONE]"
                if not line.startswith("data: {"):
                    continue
                if not pieces:
                    running.process.terminate()
                choices = json.loads(line.removeprefix("data: "))["choices"]
                pieces += [choice["finish_reason"] or "" for choice in choices]
        assert ended
        assert pieces[-1] == "length"
        with pytest.raises(httpx2.ConnectError):
            httpx2.post(url, json=body, timeout=SECONDS)
        running.process.wait(15)
    assert "Traceback" not in running.log.read_text()


@dataclass
class Stalled:
    """A caller whose step never ends, and one who waits for the engine meanwhile."""

    running: Service
    inside: httpx2.Response
    waiting: httpx2.Response


@asynccontextmanager
async def stalled(folder: Path, word: int) -> AsyncIterator[Stalled]:
    with service(
        "tests.support.stalling_service",
        folder,
        PYTHONPATH=f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        LOCAL_MODEL_NAME=str(tiny_model.save(folder / "tiny")),
        USE_GPU="false",
        ENGINE_MAX_REQUESTS="1",
        ENGINE_STALL_SECONDS="1",
    ) as running:
        async with httpx2.AsyncClient(base_url=running.url, timeout=SECONDS) as http:

            def ask(prompt: str) -> asyncio.Task[httpx2.Response]:
                body = {"prompt": prompt, "max_tokens": 3}
                return asyncio.create_task(http.post("/v1/completions", json=body))

            async def load() -> dict[str, int]:
                stats = (await http.get("/stats")).json()
                return {"running": stats["running"], "waiting": stats["waiting"]}

            inside = ask(f"w{word} " * 3)
            async with asyncio.timeout(SECONDS):
                while (await load())["running"] != 1:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.01)
            waiting = ask("w1 w2")
            yield Stalled(running, await inside, await waiting)


async def test_a_step_that_runs_on_fails_its_callers_and_nobody_else(tmp_path: Path) -> None:
    async with stalled(tmp_path, LOOPS) as seen:
        assert seen.inside.status_code == 503
        assert "ENGINE_STALL_SECONDS" in seen.inside.json()["error"]["message"]
        assert seen.waiting.status_code == 200
        assert httpx2.get(f"{seen.running.url}/readyz", timeout=SECONDS).status_code == 200


async def test_a_step_that_cannot_be_interrupted_is_the_end_of_the_process(tmp_path: Path) -> None:
    async with stalled(tmp_path, HANGS) as seen:
        assert seen.inside.status_code == 503
        assert "ENGINE_STALL_SECONDS" in seen.inside.json()["error"]["message"]
        assert seen.waiting.status_code == 503
        assert "takes longer than 2 s" in seen.waiting.json()["error"]["message"]
        assert await asyncio.to_thread(seen.running.process.wait, 30) == 1
    assert "a step of the engine takes longer" in seen.running.log.read_text()
