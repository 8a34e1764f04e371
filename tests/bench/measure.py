"""Cases, their check, and one measured cell: a subject under a case's load for some seconds."""

import json
import math
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.bench.runner import BenchError, Cores, cpu_seconds, on_core, resident_mb, settle
from tests.bench.subjects import CALLER_KEY, Started
from tests.bench.upstream import CHUNKS, CONTENT, MODEL, TOKENS, WORD

ANSWER_SECONDS = 30
"""How long an answer may take before it counts as an error."""

BATCHES = 4
LONGEST = 4
"""A slow subject's cell lasts until each connection has had `BATCHES` answers, but not longer than
`LONGEST` times an ordinary cell: answers still under way at its end don't count.
"""


@dataclass(frozen=True)
class Case:
    """A kind of load."""

    key: str
    title: str
    connections: int
    stream: bool

    @property
    def body(self) -> str:
        said = "Say hello to me, please, in a friendly way."
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": said}],
            "temperature": 0.5,
            **({"stream": True} if self.stream else {}),
        }
        return json.dumps(body, separators=(",", ":"))


PLAIN_MANY = Case("plain-16", "16 connections, whole answers", 16, False)
STREAM_MANY = Case("stream-16", f"16 connections, streams of {CHUNKS} chunks", 16, True)
PLAIN_ONE = Case("plain-1", "1 connection, whole answers", 1, False)
STREAM_ONE = Case("stream-1", f"1 connection, streams of {CHUNKS} chunks", 1, True)
CASES = [PLAIN_MANY, STREAM_MANY, PLAIN_ONE, STREAM_ONE]


@dataclass(frozen=True)
class Cell:
    """One measurement. Latencies are in milliseconds, CPU in microseconds a request."""

    per_second: float
    p50: float
    p99: float
    cpu: float
    resident_mb: float


SCRIPT = """\
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["x-api-key"] = "{key}"
wrk.body = [==[{body}]==]
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {{"requests":%d,"duration":%d,"p50":%d,"p99":%d,"status":%d,"socket":%d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


class Wrk:
    """The load generator."""

    def __init__(self, folder: Path, cores: Cores) -> None:
        self._core = cores.load
        self._scripts = {case: folder / f"{case.key}.lua" for case in CASES}
        for case, script in self._scripts.items():
            script.write_text(SCRIPT.format(body=case.body, key=CALLER_KEY))

    def run(self, case: Case, url: str, seconds: int) -> dict[str, int]:
        """Load for some seconds; BenchError unless all answers were good ones."""
        words = ["wrk", "--threads", "1", "--connections", str(case.connections)]
        words += ["--duration", f"{seconds}s", "--timeout", f"{ANSWER_SECONDS}s", "--latency"]
        words += ["--script", str(self._scripts[case]), f"{url}/chat/completions"]
        try:
            with on_core(self._core):
                done = subprocess.run(
                    words,
                    capture_output=True,
                    text=True,
                    timeout=seconds + ANSWER_SECONDS,
                    check=False,
                )
        except subprocess.TimeoutExpired:
            raise BenchError("wrk did not end") from None
        marked = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if done.returncode or not marked:
            lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
            raise BenchError(f"wrk: {lines[-1][:200]}")
        result: dict[str, int] = json.loads(marked[0].removeprefix("RESULT "))
        if result["status"] or result["socket"]:
            raise BenchError(
                f"of {result['requests']} answers {result['status']} were not 2xx, "
                f"and {result['socket']} socket errors"
            )
        return result


def measure(wrk: Wrk, case: Case, started: Started, seconds: int) -> Cell:
    """One cell."""
    before = cpu_seconds(started.processes)
    result = wrk.run(case, started.url, seconds)
    if not result["requests"]:
        raise BenchError(f"no answer in {seconds} s")
    settle(started.processes)
    spent = cpu_seconds(started.processes) - before
    return Cell(
        per_second=result["requests"] / (result["duration"] / 1e6),
        p50=result["p50"] / 1e3,
        p99=result["p99"] / 1e3,
        cpu=spent * 1e6 / result["requests"],
        resident_mb=resident_mb(started.processes),
    )


def verify(case: Case, url: str) -> float:
    """Send one request and look at the answer; how long it took. BenchError when it is wrong."""
    began = time.perf_counter()
    try:
        with httpx2.Client(timeout=ANSWER_SECONDS, trust_env=False) as http:
            answer = http.post(
                f"{url}/chat/completions",
                content=case.body,
                headers={"content-type": "application/json", "x-api-key": CALLER_KEY},
            )
    except httpx2.HTTPError as error:
        raise BenchError(f"no answer: {type(error).__name__}") from None
    took = time.perf_counter() - began
    if answer.status_code != 200:
        said = " ".join(answer.text.split())
        raise BenchError(f"status {answer.status_code}: {said[:150]}")
    try:
        _check(case, answer.text)
    except (ValueError, LookupError, TypeError) as error:
        raise BenchError(f"wrong answer: {error}") from None
    return took


def _check(case: Case, text: str) -> None:
    if not case.stream:
        body = json.loads(text)
        if body["choices"][0]["message"]["content"] != CONTENT:
            raise ValueError("the content is not the upstream's")
        if body["usage"]["total_tokens"] != TOKENS:
            raise ValueError("the usage is not the upstream's")
        return
    events = [
        line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")
    ]
    if not events or events[-1] != "[DONE]":
        raise ValueError("the stream does not end with [DONE]")
    chunks = [json.loads(event) for event in events[:-1]]
    words = [choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"]]
    found = [word for word in words if word]
    if found != [WORD] * CHUNKS:
        raise ValueError(f"{len(found)} chunks of content instead of {CHUNKS}")


def cell_seconds(case: Case, took: float, seconds: int) -> int:
    """How long a cell of a subject lasts that answers one request in `took` seconds."""
    needed = math.ceil(BATCHES * case.connections * took)
    return max(seconds, min(needed, LONGEST * seconds))
