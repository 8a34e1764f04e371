"""What a benchmark measured, its goals, and its section of RESULTS.md."""

import os
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Generic, Protocol, TypeVar


class Titled(Protocol):
    """A subject or a case."""

    @property
    def key(self) -> str: ...

    @property
    def title(self) -> str: ...


class Measured(Protocol):
    """A cell."""

    @property
    def per_second(self) -> float: ...

    @property
    def resident_mb(self) -> float: ...


C = TypeVar("C", bound=Measured)

FOLDERS = re.compile(r"(?<![\w:/.])/(?:[\w.+-]+/)+")
"""The folders of a path, which are nobody's business in a report."""


@dataclass
class Results(Generic[C]):
    """Everything measured: by subject and case, a cell for each round that gave one."""

    subjects: Sequence[Titled]
    rounds: int
    cells: dict[tuple[str, str], dict[int, C]] = field(default_factory=dict)
    failures: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, subject: str, case: Titled, number: int, cell: C) -> None:
        self.cells.setdefault((subject, case.key), {})[number] = cell

    def fail(self, subject: str, case: Titled, reason: str) -> None:
        told = FOLDERS.sub("", reason)
        self.failures.setdefault((subject, case.key), []).append(told)

    def of(self, subject: str, case: Titled) -> dict[int, C]:
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


def compared(
    results: Results[C], case: Titled, one: str, other: str, by: Callable[[C, C], float]
) -> list[float]:
    """`by` of two subjects' cells, for each round that has both."""
    ours, theirs = results.of(one, case), results.of(other, case)
    return [by(ours[number], theirs[number]) for number in sorted(ours.keys() & theirs.keys())]


def times_faster(ours: Measured, theirs: Measured) -> float:
    return ours.per_second / theirs.per_second


@dataclass(frozen=True)
class Goal(Generic[C]):
    """A comparison of two subjects, and what is wanted of its median, if anything."""

    title: str
    case: Titled
    one: str
    other: str
    by: Callable[[C, C], float]
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    def row(self, results: Results[C]) -> str:
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


def goals_table(results: Results[C], goals: Sequence[Goal[C]]) -> list[str]:
    return [
        "## Goals",
        "",
        "| | wanted | median of rounds | min to max | met |",
        "|---|---:|---:|---:|---|",
        *(goal.row(results) for goal in goals),
        "",
    ]


def failed(results: Results[C], subject: Titled, case: Titled) -> str:
    """Why a subject has no cell of this case."""
    reasons = results.failures.get((subject.key, case.key), [])
    return "failed: " + (reasons[-1].replace("|", "\\|") if reasons else "not measured")


def failures_notes(results: Results[C], case: Titled) -> list[str]:
    """What is to be said of subjects that failed in some rounds only."""
    notes = []
    for subject in results.subjects:
        reasons = results.failures.get((subject.key, case.key), [])
        if reasons and results.of(subject.key, case):
            notes += [
                f"{subject.title}: {len(reasons)} of {results.rounds} rounds failed, "
                f"the last with: {reasons[-1]}",
                "",
            ]
    return notes


def memory_table(results: Results[C]) -> list[str]:
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


def write_section(path: Path, lines: Sequence[str]) -> None:
    """Put a section, whose first line is its `# title`, in place of the one with that title, or
    at the end of the file. Other sections stay as they are.
    """
    text = path.read_text() if path.exists() else ""
    sections = [part for part in re.split(r"(?m)^(?=# )", text) if part.strip()]
    own = "\n".join(lines).strip() + "\n"
    titles = [section.partition("\n")[0] for section in sections]
    if lines[0] in titles:
        sections[titles.index(lines[0])] = own
    else:
        sections.append(own)
    path.write_text("\n".join(section.strip() + "\n" for section in sections))
