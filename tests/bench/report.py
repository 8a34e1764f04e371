"""The results as Markdown: a table a case, the goals, and what it was measured with."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median

from tests.bench.load import Setting
from tests.bench.measure import CASES, PLAIN_MANY, PLAIN_ONE, STREAM_MANY, Case, Cell
from tests.bench.results import (
    Goal,
    Results,
    failed,
    failures_notes,
    goals_table,
    machine,
    memory_table,
    times_faster,
)
from tests.bench.upstream import CHUNKS

LIBRARIES = (
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "httpx2",
    "httpx-aiohttp",
    "aiohttp",
    "openai",
    "pydantic",
    "opentelemetry-sdk",
)


def times_cheaper(ours: Cell, theirs: Cell) -> float:
    return theirs.cpu / ours.cpu if ours.cpu else float("inf")


def times_the_cpu(ours: Cell, theirs: Cell) -> float:
    return ours.cpu / theirs.cpu if theirs.cpu else float("inf")


def p99_over_p50(ours: Cell, _: Cell) -> float:
    return ours.p99 / ours.p50


def chunk_cpu(ours: Cell, _: Cell) -> float:
    """CPU microseconds of a stream by its chunks: an upper bound, with the request's own."""
    return ours.cpu / CHUNKS


def resident(ours: Cell, _: Cell) -> float:
    return ours.resident_mb


def throughput_lost(ours: Cell, theirs: Cell) -> float:
    """Percent of the other's requests that this one doesn't answer."""
    return 100 * (1 - ours.per_second / theirs.per_second)


def cpu_added(ours: Cell, theirs: Cell) -> float:
    """Percent of the other's CPU time that this one takes more."""
    return 100 * (ours.cpu / theirs.cpu - 1) if theirs.cpu else float("inf")


def p50_added(ours: Cell, theirs: Cell) -> float:
    return ours.p50 - theirs.p50


GOALS: list[Goal[Cell]] = [
    Goal(
        "llm-proxy over LiteLLM, requests/s",
        *(PLAIN_MANY, "proxy", "litellm", times_faster, " times"),
        at_least=5,
    ),
    Goal(
        "CPU of llm-proxy over the thinnest hop's",
        *(PLAIN_MANY, "proxy", "thinnest", times_the_cpu, " times"),
        at_most=1.5,
    ),
    Goal(
        "gateway + llm-proxy over LiteLLM, requests/s",
        *(PLAIN_MANY, "gateway", "litellm", times_faster, " times"),
        at_least=2.5,
    ),
    Goal(
        "llm-proxy over LiteLLM, streams/s",
        *(STREAM_MANY, "proxy", "litellm", times_faster, " times"),
        at_least=20,
    ),
    Goal(
        "p99 of llm-proxy over its p50, 16 connections",
        *(PLAIN_MANY, "proxy", "proxy", p99_over_p50, " times"),
        at_most=4,
    ),
    Goal(
        "CPU of llm-proxy for a chunk of a stream",
        *(STREAM_MANY, "proxy", "proxy", chunk_cpu, " µs"),
        at_most=15,
    ),
    Goal(
        "p50 added by llm-proxy, 1 connection",
        *(PLAIN_ONE, "proxy", "upstream", p50_added, " ms"),
        at_most=1.2,
    ),
    Goal(
        "p50 added by gateway, 1 connection",
        *(PLAIN_ONE, "gateway", "proxy", p50_added, " ms"),
        at_most=1.2,
    ),
    Goal(
        "most resident memory of llm-proxy",
        *(PLAIN_MANY, "proxy", "proxy", resident, " MB"),
        at_most=150,
    ),
]
BESIDES: list[Goal[Cell]] = [
    Goal(
        "throughput that telemetry costs llm-proxy",
        *(PLAIN_MANY, "proxy", "proxy-off", throughput_lost, " %"),
    ),
    Goal(
        "llm-proxy over LiteLLM, requests for the same CPU time",
        *(PLAIN_MANY, "proxy", "litellm", times_cheaper, " times"),
    ),
    Goal(
        "gateway + llm-proxy over LiteLLM, requests for the same CPU time",
        *(PLAIN_MANY, "gateway", "litellm", times_cheaper, " times"),
    ),
    Goal(
        "CPU time that telemetry adds to llm-proxy's",
        *(PLAIN_MANY, "proxy", "proxy-off", cpu_added, " %"),
    ),
    Goal(
        "gateway + llm-proxy over LiteLLM, streams/s",
        *(STREAM_MANY, "gateway", "litellm", times_faster, " times"),
    ),
    Goal(
        "streams/s that telemetry costs llm-proxy",
        *(STREAM_MANY, "proxy", "proxy-off", throughput_lost, " %"),
    ),
]


def case_table(results: Results[Cell], case: Case) -> list[str]:
    lines = [
        f"## {case.title}",
        "",
        "| | requests/s | min to max | p50 ms | p99 ms | CPU µs/request |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for subject in results.subjects:
        cells = list(results.of(subject.key, case).values())
        if not cells:
            lines.append(f"| {subject.title} | {failed(results, subject, case)} | | | | |")
            continue
        rates = [cell.per_second for cell in cells]
        lines.append(
            f"| {subject.title} | {median(rates):,.0f} | {min(rates):,.0f} to {max(rates):,.0f} "
            f"| {median(cell.p50 for cell in cells):.2f} "
            f"| {median(cell.p99 for cell in cells):.2f} "
            f"| {median(cell.cpu for cell in cells):,.0f} |"
        )
    return [*lines, "", *failures_notes(results, case)]


def besides_table(results: Results[Cell]) -> list[str]:
    return [
        f"At {PLAIN_MANY.connections} connections and of whole answers, where nothing else is "
        "said. Each round compares two cells of its own, a few seconds apart. Beside the goals:",
        "",
        "| | median of rounds | min to max |",
        "|---|---:|---:|",
        *(figure.row(results) for figure in BESIDES),
        "",
    ]


def versions(setting: Setting) -> str:
    found = [f"Python {platform.python_version()}", *setting.versions]
    found += [f"{name} {version(name)}" for name in LIBRARIES]
    return ", ".join([*found, f"wrk {setting.wrk}"])


def measured_with(setting: Setting) -> list[str]:
    return ["## Measured with", "", f"- {machine()}. {setting.pinning}", f"- {versions(setting)}"]


def section(results: Results[Cell], setting: Setting) -> list[str]:
    """The whole section."""
    return [
        "# llm-proxy and gateway beside LiteLLM",
        "",
        f"Made by `{setting.command}` on {datetime.now(UTC):%Y-%m-%d}. {results.rounds} rounds of "
        f"{setting.seconds} s for each subject and case, subjects in turn and each round in "
        "another order; a figure is the median of its rounds. A canned upstream answers at once.",
        "",
        *goals_table(results, GOALS),
        *besides_table(results),
        *(line for case in CASES for line in case_table(results, case)),
        *memory_table(results),
        *measured_with(setting),
        "- LiteLLM: one worker of Granian, no database, no callbacks, no debug output, no key "
        "checks.",
        "- Answers under way at the end of a cell don't count; the cells of a slow subject last "
        "up to four times longer, so that this matters less.",
        f"- Telemetry on: traces, metrics and logs of every request over OTLP; {setting.exported}",
        "- CPU time is that of a subject's own processes (user and system), for the gateway both "
        "of them, until they rest again.",
        "",
    ]
