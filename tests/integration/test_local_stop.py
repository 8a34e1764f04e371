"""inference-svc as a process: how it ends when it is told to, and when its engine is lost."""

import json
from pathlib import Path

import httpx2
import pytest

from tests.processes import service

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


def test_a_step_that_never_ends_fails_its_callers_and_ends_the_process(tmp_path: Path) -> None:
    """A prompt of 1,500 tokens on CPU cores stands for it: its step outlasts the patience."""
    body = {"prompt": "trace " * 1500, "max_tokens": 1}
    with service(
        "inference_svc",
        tmp_path,
        USE_GPU="false",
        ENGINE_STALL_SECONDS="0.3",
        ENGINE_MAX_BATCH_TOKENS="1600",
    ) as running:
        answer = httpx2.post(f"{running.url}/v1/completions", json=body, timeout=SECONDS)
        assert answer.status_code == 503
        assert "a step of the engine takes longer than 0.3 s" in answer.json()["error"]["message"]
        assert running.process.wait(30) == 1
    assert "a step of the engine takes longer" in running.log.read_text()
