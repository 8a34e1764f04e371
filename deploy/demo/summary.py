"""The summary of a run of the demo: a line a scenario, and every expectation that failed."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median

from rich.table import Table
from rich.text import Text

from deploy.demo.calls import Outcome
from deploy.demo.figures import dollars, seconds
from o11y.contracts import LocalInferenceAnswer

SLOW = 5.0
"""Tokens a second that a text of the local model should come with, four of them side by side."""

LISTED_FAILURES = 20
"""Most failures listed of one scenario: a load on a broken system would have thousands."""


@dataclass
class ScenarioResult:
    """The calls of one scenario, and how long it took as a whole."""

    name: str
    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.failures]

    @property
    def tokens_in(self) -> int:
        return sum(outcome.tokens_in for outcome in self.outcomes)

    @property
    def tokens_out(self) -> int:
        return sum(outcome.tokens_out for outcome in self.outcomes)

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens by the time the scenario took."""
        return self.tokens_out / self.seconds if self.seconds else 0.0

    @property
    def cost_usd(self) -> float | None:
        """None when the price of any call isn't known."""
        costs = [outcome.cost_usd for outcome in self.outcomes]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    def percentile(self, share: float) -> float:
        return percentile((outcome.seconds for outcome in self.outcomes), share)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def total(results: Iterable[ScenarioResult]) -> ScenarioResult:
    """All scenarios as one that took as long as all of them."""
    results = list(results)
    outcomes = [outcome for result in results for outcome in result.outcomes]
    return ScenarioResult("total", outcomes, sum(result.seconds for result in results))


def table(results: list[ScenarioResult]) -> Table:
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    found.add_column("scenario")
    for heading in (
        *("calls", "errors", "p50", "p95", "tokens in", "out", "out/s", "cost US$", "took"),
    ):
        found.add_column(heading, justify="right")
    for result in results:
        _add(found, result, "default")
    if len(results) > 1:
        _add(found, total(results), "bold")
    return found


def _add(to: Table, result: ScenarioResult, style: str) -> None:
    errors = len(result.failed)
    to.add_row(
        result.name,
        str(len(result.outcomes)),
        Text(str(errors), "bold red" if errors else "green"),
        seconds(result.percentile(0.5)),
        seconds(result.percentile(0.95)),
        f"{result.tokens_in:,}" if result.tokens_in else "-",
        f"{result.tokens_out:,}" if result.tokens_out else "-",
        f"{result.tokens_per_second:.1f}" if result.tokens_out else "-",
        dollars(result.cost_usd).removeprefix("$"),
        seconds(result.seconds),
        style=style,
    )


def slowest(results: Iterable[ScenarioResult]) -> str | None:
    """A sentence for the call that took longest, with the command that shows why."""
    traced = [each for result in results for each in result.outcomes if each.trace_id]
    if not traced:
        return None
    found = max(traced, key=lambda outcome: outcome.seconds)
    return (
        f"The slowest call: {found.call.method} {found.call.path}, {seconds(found.seconds)} "
        f"(make trace ID={found.trace_id})"
    )


def slow(results: Iterable[ScenarioResult]) -> str | None:
    """A sentence for who waits on a busy machine: the local model wrote slowly."""
    rates = [
        outcome.answer.metadata.performance.tokens_per_second
        for result in results
        for outcome in result.outcomes
        if isinstance(outcome.answer, LocalInferenceAnswer)
    ]
    if not rates or median(rates) >= SLOW:
        return None
    return (
        f"The local model wrote {median(rates):.1f} tokens a second. Everything works, but this "
        "machine is busy or small: other programs that use its processors make each answer slower."
    )


def failures(results: Iterable[ScenarioResult]) -> Iterator[str]:
    """A sentence for each call that did not do what was expected, with its trace."""
    for result in results:
        sentences = [
            f"{result.name}: {outcome.call.method} {outcome.call.path}: "
            f"{'; '.join(outcome.failures)} "
            f"({f'make trace ID={outcome.trace_id}' if outcome.trace_id else 'no trace id'})"
            for outcome in result.failed
        ]
        yield from sentences[:LISTED_FAILURES]
        if len(sentences) > LISTED_FAILURES:
            yield f"{result.name}: and {len(sentences) - LISTED_FAILURES} more calls"
