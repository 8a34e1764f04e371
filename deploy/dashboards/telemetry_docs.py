"""`python -m deploy.dashboards.telemetry_docs` writes the telemetry schema for people."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from o11y.telemetry import schema

PAGE = Path(__file__).parents[1] / "TELEMETRY.md"

INTRODUCTION = """\
# Telemetry

Every metric, span, event and key there is; written by `make telemetry-docs` from
`o11y.telemetry.schema`.
Sources: a clause of the OpenTelemetry semantic conventions (`semconv …`), the names users of the
original know (`original`), or this project (`o11y`).
"""

FORMER = """\
## Former names

With `OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental/dup` these are shown as well, as the
conventions had them before v0.1.0 of semantic-conventions-genai.
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([INTRODUCTION, *_metrics(), *_spans(), *_events(), *_attributes()])


def _metrics() -> Iterator[str]:
    yield "## Metrics\n"
    yield "Prometheus shows dots as underscores, the unit as suffix and `_total` on counters.\n"
    heads = ("Metric", "Kind", "Unit", "Says", "Labels", "Buckets", "Services", "Source")
    yield _table(
        heads,
        (
            (
                *(_code(each.name), each.kind, _code(each.unit), _says(each)),
                *(_codes(each.labels), _numbers(each.buckets), _services(each.services)),
                each.source,
            )
            for each in schema.METRICS
        ),
    )
    yield FORMER
    yield _table(
        ("Former name", "Today's"),
        sorted({(_code(each.shown.name), _code(each.recorded.name)) for each in schema.FORMER}),
    )


def _says(metric: schema.Metric) -> str:
    names = [_code(each.recorded.name) for each in schema.ALIASES if each.shown == metric]
    return f"{metric.description} Recorded as {', '.join(names)}." if names else metric.description


def _spans() -> Iterator[str]:
    yield "## Spans\n"
    yield f"Every span may have {_codes(schema.IDENTITY)} as well.\n"
    yield _table(
        ("Span", "Kind", "Services", "When", "Attributes", "Events", "Source"),
        (
            (
                *(_code(each.pattern), each.kind, _services(each.services), each.note),
                *(_codes(each.attributes), _codes(each.events), each.source),
            )
            for each in schema.SPANS
        ),
    )


def _events() -> Iterator[str]:
    yield "## Events\n"
    yield _table(
        ("Event", "Says", "Attributes"),
        ((_code(each.name), each.note, _codes(each.attributes)) for each in schema.EVENTS),
    )


def _attributes() -> Iterator[str]:
    yield "## Attributes\n"
    yield _table(
        ("Key", "Says", "On", "Source"),
        (
            (_code(each.key), each.note, ", ".join(_holders(each.key)), each.source)
            for each in schema.ATTRIBUTES
        ),
    )


def _holders(key: str) -> Iterator[str]:
    """The spans, events and metrics that have the key."""
    if key in schema.IDENTITY:
        yield "every span"
    for span in schema.SPANS:
        if key in span.attributes:
            yield f"{_code(span.pattern)} {span.kind}"
    for event in schema.EVENTS:
        if key in event.attributes:
            yield f"event {_code(event.name)}"
    if any(key in metric.labels for metric in schema.METRICS):
        yield "metrics"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _codes(texts: Iterable[str]) -> str:
    return ", ".join(map(_code, texts))


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" if value < 1e6 else str(value) for value in values)


def _services(services: tuple[str, ...]) -> str:
    return "all" if services == schema.EVERY_SERVICE else ", ".join(services)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
