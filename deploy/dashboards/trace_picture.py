"""A trace as a picture: a line a span, as `make trace` prints it."""

from collections.abc import Iterator

from deploy.dashboards.drawing import COLOURS, FAILED, FAINT, LINE, Drawing, cut
from deploy.demo import tree
from deploy.demo.figures import seconds
from deploy.demo.tempo import Span, Trace

WIDTH, ROW, TOP = 1100.0, 17.0, 46.0
NAMES, BARS, FIGURES = 110.0, 470.0, 850.0
"""Where the names of spans, the bars and the figures begin."""

INDENT = 11.0


def trace_picture(trace: Trace) -> str:
    """The trace as SVG."""
    lines = list(_walk(trace, None, 0))
    height = TOP + ROW * len(lines) + 12
    drawing = Drawing(WIDTH, height, f"Trace {trace.id}")
    colours = dict(zip(trace.services, COLOURS * len(trace.services), strict=False))
    size = f"{len(trace.spans)} spans, {len(trace.services)} services, {seconds(trace.seconds)}"
    drawing.text(14, 22, f"Trace {trace.id}", 13)
    drawing.text(WIDTH - 14, 22, size, 11, FAINT, end=True)
    across = FIGURES - BARS - 12
    for number, (span, depth) in enumerate(lines):
        y = TOP + ROW * number
        colour = FAILED if span.failed else colours[span.service]
        drawing.text(14, y, span.service, 10, colours[span.service])
        indent = NAMES + INDENT * depth
        drawing.text(indent, y, cut(span.name, BARS - indent - 8, 10.5), 10.5)
        drawing.line([(BARS, y + 4.5), (FIGURES - 12, y + 4.5)], LINE)
        begin = (span.start - trace.start) / 1e9 / max(trace.seconds, 1e-9) * across
        long = span.seconds / max(trace.seconds, 1e-9) * across
        drawing.box(BARS + begin, y - 8, max(long, 1.5), 9, colour, colour)
        drawing.text(FIGURES + 46, y, seconds(span.seconds), 10, end=True)
        told = tree.details(span, span.id in trace.orphans, set()).plain
        drawing.text(FIGURES + 58, y, cut(told, WIDTH - FIGURES - 70, 10), 10, FAINT)
    return drawing.svg()


def _walk(trace: Trace, parent: Span | None, depth: int) -> Iterator[tuple[Span, int]]:
    for span in trace.children(parent):
        yield span, depth
        yield from _walk(trace, span, depth + 1)
