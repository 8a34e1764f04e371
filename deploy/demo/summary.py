"""The summary of a run of the demo: a line for each scenario, and the expectations that failed."""

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
"""Tokens a second below which the local model is called slow, for four texts side by side."""

LISTED_FAILURES = 20
"""Most failures listed for one scenario; a load on a broken system would list thousands."""


@dataclass
class Tally:
    """The outcomes of one scenario's calls, and the seconds it took as a whole."""

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
        """Generated tokens divided by the seconds the scenario took."""
        return self.tokens_out / self.seconds if self.seconds else 0.0

    @property
    def cost_usd(self) -> float | None:
        """The cost of all calls; None when the price of any isn't known."""
        costs = [outcome.cost_usd for outcome in self.outcomes]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    def percentile(self, share: float) -> float:
        return percentile((outcome.seconds for outcome in self.outcomes), share)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def total(tallies: Iterable[Tally]) -> Tally:
    """The tally of all scenarios together: their outcomes, and the sum of their durations."""
    tallies = list(tallies)
    outcomes = [outcome for tally in tallies for outcome in tally.outcomes]
    return Tally("total", outcomes, sum(tally.seconds for tally in tallies))


def table(tallies: list[Tally]) -> Table:
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    found.add_column("scenario")
    for heading in (
        *("calls", "errors", "p50", "p95", "tokens in", "out", "out/s", "cost US$", "took"),
    ):
        found.add_column(heading, justify="right")
    for tally in tallies:
        _add(found, tally, "default")
    if len(tallies) > 1:
        _add(found, total(tallies), "bold")
    return found


def _add(to: Table, tally: Tally, style: str) -> None:
    errors = len(tally.failed)
    to.add_row(
        tally.name,
        str(len(tally.outcomes)),
        Text(str(errors), "bold red" if errors else "green"),
        seconds(tally.percentile(0.5)),
        seconds(tally.percentile(0.95)),
        f"{tally.tokens_in:,}" if tally.tokens_in else "-",
        f"{tally.tokens_out:,}" if tally.tokens_out else "-",
        f"{tally.tokens_per_second:.1f}" if tally.tokens_out else "-",
        dollars(tally.cost_usd).removeprefix("$"),
        seconds(tally.seconds),
        style=style,
    )


def slowest(tallies: Iterable[Tally]) -> str | None:
    """A sentence for the call that took longest, with the command that shows why."""
    traced = [each for tally in tallies for each in tally.outcomes if each.trace_id]
    if not traced:
        return None
    found = max(traced, key=lambda outcome: outcome.seconds)
    return (
        f"The slowest call: {found.call.method} {found.call.path}, {seconds(found.seconds)} "
        f"(make trace ID={found.trace_id})"
    )


def slow(tallies: Iterable[Tally]) -> str | None:
    """A sentence that explains a slow local model by a busy machine; None when it was fast."""
    rates = [
        outcome.answer.metadata.performance.tokens_per_second
        for tally in tallies
        for outcome in tally.outcomes
        if isinstance(outcome.answer, LocalInferenceAnswer)
    ]
    if not rates or median(rates) >= SLOW:
        return None
    return (
        f"The local model wrote {median(rates):.1f} tokens a second. Everything works, but this "
        "machine is busy or small: other programs that use its processors make each answer slower."
    )


def failures(tallies: Iterable[Tally]) -> Iterator[str]:
    """A sentence for each call that did not do what was expected, with its trace."""
    for tally in tallies:
        sentences = [
            f"{tally.name}: {outcome.call.method} {outcome.call.path}: "
            f"{'; '.join(outcome.failures)} "
            f"({f'make trace ID={outcome.trace_id}' if outcome.trace_id else 'no trace id'})"
            for outcome in tally.failed
        ]
        yield from sentences[:LISTED_FAILURES]
        if len(sentences) > LISTED_FAILURES:
            yield f"{tally.name}: and {len(sentences) - LISTED_FAILURES} more calls"
