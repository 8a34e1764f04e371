"""A trace as a tree in the terminal, one line for each span."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from deploy.demo.figures import dollars, seconds
from deploy.demo.tempo import Span, Trace
from o11y.telemetry import schema

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red")
DURATION_WIDTH = 7
PLAIN_WIDTH = 120
"""Columns of the output in a file or pipe, which have no width of their own."""


def console() -> Console:
    """Standard output, as wide as the terminal or `COLUMNS`, else PLAIN_WIDTH."""
    plain = not Console().is_terminal and "COLUMNS" not in os.environ
    width = PLAIN_WIDTH if plain else None
    return Console(width=width, highlight=False, markup=False, emoji=False)


def show(to: Console, trace: Trace) -> None:
    """Print the tree, never wider than the console."""
    for line in render(trace, to.width):
        to.print(line, no_wrap=True, overflow="ellipsis", crop=True)


@dataclass(frozen=True)
class _Line:
    span: Span
    branch: str
    details: Text

    @property
    def name(self) -> str:
        return self.branch + _flat(self.span.name)


def render(trace: Trace, width: int) -> list[Text]:
    """A heading and a line for each span, each of at most `width` cells.

    Names and details share the room that service, bar and duration leave; names give way to short
    details, long details to names.
    """
    colours = dict(zip(trace.services, COLOURS * len(trace.services), strict=False))
    lines = list(_walk(trace, None, "", _replicated(trace)))
    bar_width = max(8, min(24, width // 5 - 2))
    service_width = max(len(_flat(service)) for service in trace.services)
    room = width - service_width - bar_width - DURATION_WIDTH - 5
    details_width = min(width // 4, max(line.details.cell_len for line in lines))
    name_width = max(Text(line.name).cell_len for line in lines)
    name_width = max(1, min(name_width, room - details_width))
    rendered = [_heading(trace)]
    for line in lines:
        span, colour = line.span, colours[line.span.service]
        style = "bold red" if span.failed else "default"
        name = Text(line.branch, "dim").append(_flat(span.name), style)
        name.truncate(name_width, overflow="ellipsis", pad=True)
        rendered.append(
            Text(" ").join(
                [
                    Text(_flat(span.service).ljust(service_width), colour),
                    name,
                    Text(_bar(span, trace, bar_width), "red" if span.failed else colour),
                    Text(seconds(span.seconds).rjust(DURATION_WIDTH)),
                    Text(" ") + line.details,
                ]
            )
        )
    for text in rendered:
        text.rstrip()
        text.truncate(width, overflow="ellipsis")
    return rendered


def _heading(trace: Trace) -> Text:
    counts = {"span": len(trace.spans), "service": len(trace.services)}
    parts = [f"{count} {noun}{'s' if count > 1 else ''}" for noun, count in counts.items()]
    parts.append(seconds(trace.seconds))
    for label, key in (("user", schema.USER_ID), ("session", schema.SESSION_ID)):
        value = next((s.attributes[key] for s in trace.spans if key in s.attributes), None)
        if value:
            parts.append(f"{label} {_flat(value)}")
    return Text("Trace ", "bold").append(trace.id).append(f"  {', '.join(parts)}", "dim")


def _walk(trace: Trace, parent: Span | None, lead: str, replicated: set[str]) -> Iterator[_Line]:
    spans = trace.children(parent)
    for span in spans:
        last = span is spans[-1]
        branch = "" if parent is None else lead + ("└ " if last else "├ ")
        below = "" if parent is None else lead + ("  " if last else "│ ")
        yield _Line(span, branch, details(span, span.id in trace.orphans, replicated))
        yield from _walk(trace, span, below, replicated)


def _replicated(trace: Trace) -> set[str]:
    """Services of which more than one replica took part."""
    replicas = {(span.service, span.instance) for span in trace.spans}
    names = [service for service, _ in replicas]
    return {name for name in names if names.count(name) > 1}


def _bar(span: Span, trace: Trace, width: int) -> str:
    """A bar at the span's place in the trace, drawn in half cells; at least one."""
    total = 2 * width
    whole = trace.seconds or 1.0
    first = min(total - 1, int((span.start - trace.start) / 1e9 / whole * total))
    end = min(total, max(first + 1, round(first + span.seconds / whole * total)))
    cells = {(True, True): "━", (True, False): "╸", (False, True): "╺", (False, False): " "}
    halves = [first <= half < end for half in range(total)]
    return "".join(cells[pair] for pair in zip(halves[::2], halves[1::2], strict=True))


def details(span: Span, orphan: bool, replicated: set[str]) -> Text:
    """The span's failure, stage, tokens, cost, results, model and replica, as far as known."""
    found = span.attributes
    parts: list[tuple[str, str]] = []

    def add(text: str, style: str = "default") -> None:
        parts.append((_flat(text), style))

    if orphan:
        add("parent missing", "yellow")
    if span.failed:
        facts = (found.get(schema.ERROR_TYPE), span.message)
        reasons = [str(reason) for reason in facts if reason]
        add("✗ " + ": ".join(reasons or ["failed"]), "bold red")
    if stage := found.get(schema.PIPELINE_STAGE):
        add(f"stage {stage}", "dim")
    if tokens := [
        str(found[key]) for key in (schema.INPUT_TOKENS, schema.OUTPUT_TOKENS) if key in found
    ]:
        add(f"{'→'.join(tokens)} tokens")
    cost = found.get(schema.COST_USD)
    if isinstance(cost, int | float):
        add(dollars(cost), "bold" if cost else "default")
    if schema.RESULT_COUNT in found:
        add(f"{found[schema.RESULT_COUNT]} found")
    similarity = found.get(schema.TOP_SIMILARITY)
    if isinstance(similarity, int | float):
        add(f"top {similarity:.2f}")
    model = str(found.get(schema.RESPONSE_MODEL) or found.get(schema.REQUEST_MODEL) or "")
    if model and model not in span.name:
        add(model)
    if span.service in replicated:
        add(f"replica {span.instance[:8]}", "dim")
    return Text(", ").join(Text(text, style) for text, style in parts)


def _flat(value: object) -> str:
    """One line of printable text from a foreign value, which could move the cursor otherwise."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(value))
    return " ".join(text.split())
