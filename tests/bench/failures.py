"""`python -m tests.bench.failures`: what requests notice of a telemetry backend that fails."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

from tests.bench.load import Setting, run
from tests.bench.measure import PLAIN_MANY, PLAIN_ONE, Cell
from tests.bench.report import case_table, measured_with
from tests.bench.results import Goal, Results, goals_table, memory_table
from tests.bench.subjects import Site, Started, Subject, proxy_alone
from tests.support.processes import free_ports

HEALTHY = "takes"
CONDUCTS = {
    "hangs": "it never answers",
    "slow": "it answers after half a second",
    "busy": "it answers 429",
    "unavailable": "it answers 503",
    "cuts": "it cuts every connection",
}
SHORT = {"OTEL_METRIC_EXPORT_INTERVAL": "1000"}
"""Metrics, too, meet the failure within a cell."""


@contextmanager
def _absent(site: Site) -> Iterator[Started]:
    (closed,) = free_ports(1)
    settings = {**SHORT, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{closed}"}
    with proxy_alone(site, "absent", telemetry=True, settings=settings) as started:
        yield started


@contextmanager
def _failing(site: Site, conduct: str) -> Iterator[Started]:
    settings = {**SHORT, "OTEL_EXPORTER_OTLP_ENDPOINT": f"{site.sink_url}/{conduct}"}
    with proxy_alone(site, conduct, telemetry=True, settings=settings) as started:
        yield started


SUBJECTS = [
    Subject(
        HEALTHY,
        "it takes all",
        partial(proxy_alone, name=HEALTHY, telemetry=True, settings=SHORT),
    ),
    Subject("absent", "nothing listens", _absent),
    *(
        Subject(conduct, title, partial(_failing, conduct=conduct))
        for conduct, title in CONDUCTS.items()
    ),
]


def p99_more(ours: Cell, theirs: Cell) -> float:
    """Percent that the slowest of a hundred requests takes longer."""
    return 100 * (ours.p99 / theirs.p99 - 1)


def memory_more(ours: Cell, theirs: Cell) -> float:
    return ours.resident_mb - theirs.resident_mb


GOALS: list[Goal[Cell]] = [
    *(
        Goal(
            f"p99 at {case.connections} connection{'s' * (case.connections > 1)}, {failing.title}",
            *(case, failing.key, HEALTHY, p99_more, " %"),
            at_most=10,
        )
        for case in (PLAIN_MANY, PLAIN_ONE)
        for failing in SUBJECTS[1:]
    ),
    *(
        Goal(
            f"more memory, {failing.title}",
            *(PLAIN_MANY, failing.key, HEALTHY, memory_more, " MB"),
            at_most=50,
        )
        for failing in SUBJECTS[1:]
    ),
]


def section(results: Results[Cell], setting: Setting) -> list[str]:
    """The whole section."""
    return [
        "# When telemetry's backend fails",
        "",
        f"Made by `{setting.command}` on {datetime.now(UTC):%Y-%m-%d}. One llm-proxy for each way "
        f"to fail, {results.rounds} rounds of {setting.seconds} s for each and case, in turn and "
        "each round in another order, each compared with the one of its round whose backend takes "
        "all. It fails from the start to the end.",
        "",
        *goals_table(results, GOALS),
        *case_table(results, PLAIN_MANY),
        *case_table(results, PLAIN_ONE),
        *memory_table(results),
        *measured_with(setting),
        "",
    ]


def main(given: list[str] | None = None) -> int:
    return run("failures", __doc__, SUBJECTS, [PLAIN_MANY, PLAIN_ONE], section, given)


if __name__ == "__main__":
    sys.exit(main())
