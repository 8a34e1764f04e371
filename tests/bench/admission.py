"""`python -m tests.bench.admission`: what keys, limits, budgets and the ledger cost."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial

import psutil

from tests.bench.load import Setting, run
from tests.bench.measure import PLAIN_MANY, PLAIN_ONE, Cell
from tests.bench.report import case_table, cpu_added, measured_with, p50_added
from tests.bench.results import Goal, Results, goals_table
from tests.bench.subjects import CALLER_KEY, Site, Started, Subject, gateway_and_proxy
from tests.support.postgres import postgres
from tests.support.redis import redis_server

KEY = {
    "key": CALLER_KEY,
    "name": "bench",
    "tenant": "bench",
    "limits": {
        "requests_per_minute": 10**8,
        "tokens_per_minute": 10**9,
        "concurrent": 1000,
    },
    "budgets": {"day": "100000", "month": "500000"},
}


@contextmanager
def _with_ledger(site: Site) -> Iterator[Started]:
    settings = {
        "DATABASE_URL": f"sqlite:///{site.folder}/ledger.db",
        "LEDGER_DIRECTORY": str(site.folder / "ledger"),
        "AUTH": "off",
    }
    with gateway_and_proxy(site, settings) as started:
        yield started


@contextmanager
def _admitted(site: Site, *, shared: bool) -> Iterator[Started]:
    name = "shared" if shared else "alone"
    keys = site.folder / "keys.json"
    keys.write_text(json.dumps([KEY]))
    with ExitStack() as stack:
        database, limits = f"sqlite:///{site.folder}/{name}.db", "memory://"
        if shared:
            database, first = stack.enter_context(postgres(site.folder))
            limits, second = stack.enter_context(redis_server(site.folder))
            _beside_the_load(site, first, second)
        settings = {
            "DATABASE_URL": database,
            "LEDGER_DIRECTORY": str(site.folder / f"ledger-{name}"),
            "LIMITS_URL": limits,
            "KEYS_FILE": str(keys),
        }
        yield stack.enter_context(gateway_and_proxy(site, settings))


def _beside_the_load(site: Site, *servers: int) -> None:
    """Let servers that are not measured run where the load does, what they start later included."""
    if site.cores.load is None:
        return
    for server in servers:
        first = psutil.Process(server)
        for process in (first, *first.children()):
            process.cpu_affinity([site.cores.load])


SUBJECTS = [
    Subject("free", "no keys, no ledger", partial(gateway_and_proxy, settings={"AUTH": "off"})),
    Subject("ledger", "the ledger in SQLite", _with_ledger),
    Subject(
        "admitted",
        "key, three limits, two budgets: SQLite and memory",
        partial(_admitted, shared=False),
    ),
    Subject(
        "shared",
        "the same in PostgreSQL and Redis, as in Compose",
        partial(_admitted, shared=True),
    ),
]
GOALS: list[Goal[Cell]] = [
    Goal(
        "CPU that admission adds to gateway + llm-proxy, SQLite",
        *(PLAIN_MANY, "admitted", "free", cpu_added, " %"),
        at_most=20,
    ),
    Goal(
        "p50 that admission adds at 1 connection, PostgreSQL and Redis",
        *(PLAIN_ONE, "shared", "free", p50_added, " ms"),
        at_most=0.5,
    ),
]


def section(results: Results[Cell], setting: Setting) -> list[str]:
    """The whole section."""
    against = [
        Goal(f"{subject.title}: {what}", case, subject.key, "free", measure, unit).row(results)
        for subject in SUBJECTS[1:]
        for what, case, measure, unit in (
            ("CPU", PLAIN_MANY, cpu_added, " %"),
            ("p50 at 1 connection", PLAIN_ONE, p50_added, " ms"),
        )
    ]
    return [
        "# What admission costs",
        "",
        f"Made by `{setting.command}` on {datetime.now(UTC):%Y-%m-%d}. Gateway and llm-proxy, "
        f"telemetry on, {results.rounds} rounds of {setting.seconds} s for each, in turn and each "
        "round in another order; a figure is the median of its rounds.",
        "",
        *goals_table(results, GOALS),
        "More than without keys and ledger:",
        "",
        "| | median of rounds | min to max |",
        "|---|---:|---:|",
        *against,
        "",
        *case_table(results, PLAIN_MANY),
        *case_table(results, PLAIN_ONE),
        *measured_with(setting),
        "- PostgreSQL and Redis run on the load's core; their CPU time is not in the figures.",
        "",
    ]


def main(given: list[str] | None = None) -> int:
    return run("admission", __doc__, SUBJECTS, [PLAIN_MANY, PLAIN_ONE], section, given)


if __name__ == "__main__":
    sys.exit(main())
