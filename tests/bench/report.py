"""The results as Markdown: a table a case, the goals, and what it was measured with."""

import os
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from tests.bench.measure import CASES, PLAIN_MANY, PLAIN_ONE, STREAM_MANY, Case, Cell
from tests.bench.subjects import Subject

LIBRARIES = (
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "httpx2",
    "openai",
    "pydantic",
    "opentelemetry-sdk",
)

FOLDERS = re.compile(r"(?<![\w:/.])/(?:[\w.+-]+/)+")
"""The folders of a path, which are nobody's business in a report."""


@dataclass
class Results:
    """Everything measured: by subject and case, a cell for each round that gave one."""

    subjects: Sequence[Subject]
    rounds: int
    cells: dict[tuple[str, str], dict[int, Cell]] = field(default_factory=dict)
    failures: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, subject: str, case: Case, number: int, cell: Cell) -> None:
        self.cells.setdefault((subject, case.key), {})[number] = cell

    def fail(self, subject: str, case: Case, reason: str) -> None:
        told = FOLDERS.sub("", reason)
        self.failures.setdefault((subject, case.key), []).append(told)

    def of(self, subject: str, case: Case) -> dict[int, Cell]:
        return self.cells.get((subject, case.key), {})

    def resident_mb(self, subject: str) -> float | None:
        """The most memory a subject had at the end of any cell."""
        seen = [
            cell.resident_mb
            for (key, _), cells in self.cells.items()
            if key == subject
            for cell in cells.values()
        ]
        return max(seen, default=None)


Compare = Callable[[Cell, Cell], float]


def compared(results: Results, case: Case, one: str, other: str, by: Compare) -> list[float]:
    """`by` of two subjects' cells, for each round that has both."""
    ours, theirs = results.of(one, case), results.of(other, case)
    return [by(ours[number], theirs[number]) for number in sorted(ours.keys() & theirs.keys())]


def times_faster(ours: Cell, theirs: Cell) -> float:
    return ours.per_second / theirs.per_second


def times_cheaper(ours: Cell, theirs: Cell) -> float:
    return theirs.cpu / ours.cpu if ours.cpu else float("inf")


def throughput_lost(ours: Cell, theirs: Cell) -> float:
    """Percent of the other's requests that this one doesn't answer."""
    return 100 * (1 - ours.per_second / theirs.per_second)


def cpu_added(ours: Cell, theirs: Cell) -> float:
    """Percent of the other's CPU time that this one takes more."""
    return 100 * (ours.cpu / theirs.cpu - 1) if theirs.cpu else float("inf")


def p50_added(ours: Cell, theirs: Cell) -> float:
    return ours.p50 - theirs.p50


@dataclass(frozen=True)
class Goal:
    """A comparison of two subjects, and what is wanted of its median, if anything."""

    title: str
    case: Case
    one: str
    other: str
    by: Compare
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    def row(self, results: Results) -> str:
        values = compared(results, self.case, self.one, self.other, self.by)
        middle = f"{median(values):.2f}{self.unit}" if values else "not measured"
        spread = f"{min(values):.2f} to {max(values):.2f}" if values else ""
        if self.at_least is not None:
            wanted = f"≥ {self.at_least:g}{self.unit}"
            met = bool(values) and median(values) >= self.at_least
        elif self.at_most is not None:
            wanted = f"≤ {self.at_most:g}{self.unit}"
            met = bool(values) and median(values) <= self.at_most
        else:
            return f"| {self.title} | {middle} | {spread} |"
        verdict = "yes" if met else "**no**" if values else ""
        return f"| {self.title} | {wanted} | {middle} | {spread} | {verdict} |"


GOALS = [
    Goal(
        "llm-proxy over LiteLLM, requests/s",
        *(PLAIN_MANY, "proxy", "litellm", times_faster, " times"),
        at_least=20,
    ),
    Goal(
        "gateway + llm-proxy over LiteLLM, requests/s",
        *(PLAIN_MANY, "gateway", "litellm", times_faster, " times"),
        at_least=10,
    ),
    Goal(
        "throughput that telemetry costs llm-proxy",
        *(PLAIN_MANY, "proxy", "proxy-off", throughput_lost, " %"),
        at_most=25,
    ),
    Goal(
        "p50 added by llm-proxy, 1 connection",
        *(PLAIN_ONE, "proxy", "upstream", p50_added, " ms"),
        at_most=1,
    ),
    Goal(
        "p50 added by gateway, 1 connection",
        *(PLAIN_ONE, "gateway", "proxy", p50_added, " ms"),
        at_most=1,
    ),
]
BESIDES = [
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
        "llm-proxy over LiteLLM, streams/s",
        *(STREAM_MANY, "proxy", "litellm", times_faster, " times"),
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


def case_table(results: Results, case: Case) -> list[str]:
    lines = [
        f"## {case.title}",
        "",
        "| | requests/s | min to max | p50 ms | p99 ms | CPU µs/request |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    notes = []
    for subject in results.subjects:
        cells = list(results.of(subject.key, case).values())
        reasons = results.failures.get((subject.key, case.key), [])
        if not cells:
            reason = reasons[-1].replace("|", "\\|") if reasons else "not measured"
            lines.append(f"| {subject.title} | failed: {reason} | | | | |")
            continue
        rates = [cell.per_second for cell in cells]
        lines.append(
            f"| {subject.title} | {median(rates):,.0f} | {min(rates):,.0f} to {max(rates):,.0f} "
            f"| {median(cell.p50 for cell in cells):.2f} "
            f"| {median(cell.p99 for cell in cells):.2f} "
            f"| {median(cell.cpu for cell in cells):,.0f} |"
        )
        if reasons:
            notes.append(
                f"{subject.title}: {len(reasons)} of {results.rounds} rounds failed, "
                f"the last with: {reasons[-1]}"
            )
    return [*lines, "", *(line for note in notes for line in (note, ""))]


def goals_table(results: Results) -> list[str]:
    return [
        "## Goals",
        "",
        "| | wanted | median of rounds | min to max | met |",
        "|---|---:|---:|---:|---|",
        *(goal.row(results) for goal in GOALS),
        "",
        f"At {PLAIN_MANY.connections} connections and of whole answers, where nothing else is "
        "said. Each round compares two cells of its own, a few seconds apart. Beside the goals:",
        "",
        "| | median of rounds | min to max |",
        "|---|---:|---:|",
        *(figure.row(results) for figure in BESIDES),
        "",
    ]


def memory_table(results: Results) -> list[str]:
    rows = []
    for subject in results.subjects:
        most = results.resident_mb(subject.key)
        rows.append(f"| {subject.title} | {'' if most is None else f'{most:,.0f}'} |")
    return ["## Memory", "", "| | most resident MB |", "|---|---:|", *rows, ""]


def machine() -> str:
    """CPU model and the number of cores, and no name of the machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if named:
            model = named[0].partition(":")[2].strip()
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


def versions(litellm: str, wrk: str) -> str:
    found = [f"Python {platform.python_version()}"]
    found += [f"LiteLLM {litellm}"] if litellm else []
    found += [f"{name} {version(name)}" for name in LIBRARIES]
    return ", ".join([*found, f"wrk {wrk}"])


@dataclass(frozen=True)
class Setting:
    """How the results came about."""

    command: str
    seconds: int
    pinning: str
    litellm: str
    wrk: str
    exported: str


def markdown(results: Results, setting: Setting) -> str:
    """The whole report."""
    lines = [
        "# llm-proxy and gateway beside LiteLLM",
        "",
        f"Made by `{setting.command}` on {datetime.now(UTC):%Y-%m-%d}. {results.rounds} rounds of "
        f"{setting.seconds} s for each subject and case, subjects in turn and each round in "
        "another order; a figure is the median of its rounds. A canned upstream answers at once.",
        "",
        *goals_table(results),
        *(line for case in CASES for line in case_table(results, case)),
        *memory_table(results),
        "## Measured with",
        "",
        f"- {machine()}. {setting.pinning}",
        f"- {versions(setting.litellm, setting.wrk)}",
        "- LiteLLM: one worker of Granian, no database, no callbacks, no debug output, no key "
        "checks.",
        "- Answers under way at the end of a cell don't count; the cells of a slow subject last "
        "up to four times longer, so that this matters less.",
        f"- Telemetry on: traces, metrics and logs of every request over OTLP; {setting.exported}",
        "- CPU time is that of a subject's own processes (user and system), for the gateway both "
        "of them, until they rest again.",
        "",
    ]
    return "\n".join(lines)
