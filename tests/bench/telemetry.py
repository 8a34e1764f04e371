"""`python -m tests.bench.telemetry`: what telemetry costs llm-proxy, and which part of it."""

import sys
from datetime import UTC, datetime
from functools import partial

from tests.bench.load import Setting, run
from tests.bench.measure import PLAIN_MANY, Cell
from tests.bench.report import case_table, cpu_added, measured_with, throughput_lost
from tests.bench.results import Goal, Results, goals_table
from tests.bench.subjects import Subject, proxy_alone

NOT_EXPORTED = {
    "traces": {"OTEL_TRACES_EXPORTER": "none"},
    "metrics": {"OTEL_METRICS_EXPORTER": "none"},
    "logs": {"OTEL_LOGS_EXPORTER": "none"},
}


def _on(key: str, title: str, **settings: str) -> Subject:
    return Subject(key, title, partial(proxy_alone, name=key, telemetry=True, settings=settings))


SUBJECTS = [
    Subject("off", "off", partial(proxy_alone, name="off", telemetry=False)),
    _on(
        "metrics",
        "metrics only: no span, no log line exported",
        OTEL_TRACES_SAMPLER="always_off",
        **NOT_EXPORTED["traces"],
        **NOT_EXPORTED["logs"],
    ),
    _on(
        "recorded",
        "everything recorded, nothing exported",
        **NOT_EXPORTED["traces"],
        **NOT_EXPORTED["metrics"],
        **NOT_EXPORTED["logs"],
    ),
    _on("no-logs", "on, but no log line exported", **NOT_EXPORTED["logs"]),
    _on("no-traces", "on, but no span exported", **NOT_EXPORTED["traces"]),
    _on(
        "tenth",
        "on, 10 % of traces",
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.1",
    ),
    _on("on", "on, all traces"),
]
PARTS = [
    ("metrics, and a span that is not recorded", "metrics", "off"),
    ("spans and log records as objects", "recorded", "metrics"),
    ("spans encoded, queued and sent", "on", "no-traces"),
    ("log records encoded, queued and sent", "on", "no-logs"),
]
"""What the difference between two subjects is."""


def cpu_more(ours: Cell, theirs: Cell) -> float:
    """Microseconds a request that this one takes more than the other."""
    return ours.cpu - theirs.cpu


GOALS: list[Goal[Cell]] = [
    Goal(
        "throughput that telemetry costs llm-proxy",
        *(PLAIN_MANY, "on", "off", throughput_lost, " %"),
        at_most=25,
    )
]


def section(results: Results[Cell], setting: Setting) -> list[str]:
    """The whole section."""
    against = [
        Goal(subject.title, PLAIN_MANY, subject.key, "off", cpu_added, " %").row(results)
        for subject in SUBJECTS[1:]
    ]
    return [
        "# What telemetry costs",
        "",
        f"Made by `{setting.command}` on {datetime.now(UTC):%Y-%m-%d}. llm-proxy with its "
        f"telemetry in parts, {results.rounds} rounds of {setting.seconds} s for each, in turn and "
        "each round in another order; a figure is the median of its rounds.",
        "",
        *goals_table(results, GOALS),
        "CPU time over that of llm-proxy with telemetry off:",
        "",
        "| | median of rounds | min to max |",
        "|---|---:|---:|",
        *against,
        "",
        "Where it goes, in CPU time a request:",
        "",
        "| | median of rounds | min to max |",
        "|---|---:|---:|",
        *(
            Goal(title, PLAIN_MANY, one, other, cpu_more, " µs").row(results)
            for title, one, other in PARTS
        ),
        "",
        *case_table(results, PLAIN_MANY),
        *measured_with(setting),
        f"- Telemetry goes to a sink beside the load generator; {setting.exported}",
        "- Off, too, writes an access line for each request to standard output.",
        "",
    ]


def main(given: list[str] | None = None) -> int:
    return run("telemetry", __doc__, SUBJECTS, [PLAIN_MANY], section, given)


if __name__ == "__main__":
    sys.exit(main())
