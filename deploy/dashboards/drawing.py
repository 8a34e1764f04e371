"""SVG of dashboards and traces, with the standard library alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

BACKGROUND, CARD, LINE, INK, FAINT = "#111217", "#181b1f", "#2c3235", "#d8d9da", "#8e9299"
COLOURS = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#b877d9", "#5794f2", "#fade2a")
FAILED = "#f2495c"
CHARACTER = 0.56
"""Width of a character of the font, in heights: text is cut to fit by it."""

Points = Sequence[tuple[float, float]]


def cut(text: str, width: float, size: float) -> str:
    """As much of a text as fits into `width`."""
    most = max(1, int(width / (size * CHARACTER)))
    return text if len(text) <= most else text[: most - 1] + "…"


@dataclass
class Drawing:
    """A picture of this size in pixels; y grows downwards."""

    width: float
    height: float
    title: str
    _parts: list[str] = field(default_factory=list)

    def box(
        self, x: float, y: float, width: float, height: float, fill: str = CARD, edge: str = LINE
    ) -> None:
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}" '
            f'rx="2" fill="{fill}" stroke="{edge}" stroke-width="0.7"/>'
        )

    def text(
        self, x: float, y: float, words: str, size: float = 9, colour: str = INK, end: bool = False
    ) -> None:
        """Words with their base line at y, to the right of x, or with `end` to its left."""
        anchor = ' text-anchor="end"' if end else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{colour}"{anchor}>'
            f"{escape(words)}</text>"
        )

    def line(self, points: Points, colour: str) -> None:
        told = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(
            f'<polyline points="{told}" fill="none" stroke="{colour}" stroke-width="1"/>'
        )

    def plot(
        self, x: float, y: float, width: float, height: float, curves: Iterable[Points]
    ) -> None:
        """Curves of one scale in a box; the scale begins at zero unless a value is below."""
        drawn = [curve for curve in curves if curve]
        if not drawn:
            return
        times = [time for curve in drawn for time, _ in curve]
        values = [value for curve in drawn for _, value in curve]
        first, last = min(times), max(times)
        least, most = min(0.0, *values), max(values)
        across, up = max(last - first, 1e-9), max(most - least, 1e-9)
        for number, curve in enumerate(drawn):
            self.line(
                [
                    (
                        x + (time - first) / across * width,
                        y + height - (value - least) / up * height,
                    )
                    for time, value in curve
                ],
                COLOURS[number % len(COLOURS)],
            )

    def svg(self) -> str:
        """The file."""
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} '
                f'{self.height:g}" font-family="ui-sans-serif, Helvetica, Arial, sans-serif" '
                f'role="img">',
                f"<title>{escape(self.title)}</title>",
                f'<rect width="100%" height="100%" fill="{BACKGROUND}"/>',
                *self._parts,
                "</svg>",
                "",
            ]
        )
