"""Three kinds of trouble, made on purpose: what is called, which panels show it, how its trace is
found.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.demo.workload import TRACING
from o11y.telemetry import schema


@dataclass(frozen=True)
class Request:
    """A request of somebody who makes trouble."""

    path: str
    body: Mapping[str, Any]
    tenant: str


@dataclass(frozen=True)
class Trouble:
    """A story: `panels` in the order somebody looks at them, as (dashboard's uid, panel's title);
    then the trace with the most of `worst` among those that `traceql` finds.
    """

    name: str
    requests: tuple[Request, ...]
    at_once: int
    panels: tuple[tuple[str, str], ...]
    traceql: str
    worst: str
    least: bool = False


def _pipeline(tenant: str) -> Request:
    return Request("/full-pipeline", {"query": TRACING, "store_results": False}, tenant)


LONG = " ".join(f"Log line {number}: the service answered in {number} ms." for number in range(90))
TROUBLES = (
    Trouble(
        "The answer got slow",
        (
            _pipeline("house"),
            *(
                Request(
                    "/local-inference",
                    {"prompt": f"Chapter {number}. Once upon a time", "max_length": 400},
                    "batch-job",
                )
                for number in range(5)
            ),
        ),
        12,
        (
            ("o11y-pipeline", "Pipeline calls, 95 %"),
            ("o11y-pipeline", "Where the time goes"),
            ("o11y-inference", "Sequences in a step"),
            ("o11y-inference", "Time for each further token"),
            ("o11y-inference", "Tokens a second by tenant"),
        ),
        '{ name = "POST /full-pipeline" && kind = server }',
        "duration",
    ),
    Trouble(
        "The bill went up",
        (
            Request("/chat", {"message": f"Summarize. {LONG}", "max_tokens": 16}, "acme"),
            Request("/chat", {"message": "What is a trace?", "max_tokens": 16}, "house"),
        ),
        2,
        (
            ("o11y-cost", "USD an hour"),
            ("o11y-cost", "By tenant"),
            ("o11y-cost", "A call, by model"),
            ("o11y-cost", "Input tokens a call"),
        ),
        f"{{ span.{schema.COST_USD} > 0.001 }}",
        schema.COST_USD,
    ),
    Trouble(
        "The answers got worse",
        (
            Request("/search", {"query": "How long does an apple pie bake?"}, "house"),
            Request("/search", {"query": "Which shoes for a marathon in the rain?"}, "house"),
            Request(
                "/search",
                {"query": TRACING, "filter_metadata": {"topic": "monitoring"}},
                "house",
            ),
        ),
        2,
        (
            ("o11y-retrieval", "Top similarity"),
            ("o11y-retrieval", "Empty searches"),
            ("o11y-retrieval", "Similarity of all documents found"),
        ),
        f"{{ span.{schema.TOP_SIMILARITY} < 0.3 }}",
        schema.TOP_SIMILARITY,
        least=True,
    ),
)
