"""The tree of a trace in the terminal."""

from collections.abc import Mapping
from io import StringIO

from rich.console import Console

from deploy.demo import tree
from deploy.demo.tempo import Span, Trace

MILLI = 1_000_000


def span(
    id: str,
    parent: str | None,
    service: str,
    name: str,
    start: float,
    end: float,
    attributes: Mapping[str, object] | None = None,
    *,
    failed: bool = False,
    message: str = "",
    instance: str = "one",
) -> Span:
    times = (int(start * MILLI), int(end * MILLI))
    return Span(id, parent, name, service, instance, *times, attributes or {}, failed, message)


def printed(trace: Trace, width: int) -> list[str]:
    to = Console(file=StringIO(), width=width, color_system=None, highlight=False, markup=False)
    tree.show(to, trace)
    assert isinstance(to.file, StringIO)
    return to.file.getvalue().splitlines()


PIPELINE = Trace(
    "0af7651916cd43dd8448eb211c80319c",
    (
        span("1", None, "gateway", "POST /full-pipeline", 0, 6000, {"user.id": "alice"}),
        span("2", "1", "gateway", "POST /v1/chat/completions", 0, 4500, {
            "o11y.pipeline.stage": "chat",
        }),
        span("3", "2", "llm-proxy", "POST /v1/chat/completions", 1, 4499),
        span("4", "3", "llm-proxy", "chat gpt-4o-mini", 2, 4498, {
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
            "gen_ai.usage.input_tokens": 214,
            "gen_ai.usage.output_tokens": 28,
            "o11y.cost.usd": 0.0000489,
        }),
        span("5", "1", "gateway", "POST /search", 4600, 4610, {
            "o11y.pipeline.stage": "search",
        }),
        span("6", "5", "vector-svc", "retrieval documents", 4601, 4609.5, {
            "gen_ai.request.model": "all-MiniLM-L6-v2",
            "o11y.retrieval.result_count": 3,
            "o11y.retrieval.top_similarity": 0.8010,
        }),
        span("7", "1", "gateway", "POST /documents", 4700, 6000, {
            "error.type": "ConnectError",
        }, failed=True, message="refused"),
        span("8", "gone", "inference-svc", "text_completion gemma-3-270m", 3000, 5000, {
            "gen_ai.response.model": "gemma-3-270m",
            "gen_ai.usage.input_tokens": 6,
        }),
    ),
)  # fmt: skip

SNAPSHOT = """\
Trace 0af7651916cd43dd8448eb211c80319c  8 spans, 4 services, 6.00 s, user alice
gateway       POST /full-pipeline           ━━━━━━━━━━━━━━━━━━  6.00 s
gateway       ├ POST /v1/chat/completions   ━━━━━━━━━━━━━╸      4.50 s  stage chat
llm-proxy     │ └ POST /v1/chat/completions ━━━━━━━━━━━━━╸      4.50 s
llm-proxy     │   └ chat gpt-4o-mini        ━━━━━━━━━━━━━╸      4.50 s  214→28 tokens, $0.000049, g…
gateway       ├ POST /search                             ╺       10 ms  stage search
vector-svc    │ └ retrieval documents                    ╺      8.5 ms  3 found, top 0.80, all-Mini…
gateway       └ POST /documents                           ━━━━  1.30 s  ✗ ConnectError: refused
inference-svc text_completion gemma-3-270m           ━━━━━━     2.00 s  parent missing, 6 tokens
"""


def test_snapshot_at_100_columns() -> None:
    assert printed(PIPELINE, 100) == SNAPSHOT.splitlines()


def test_lines_never_exceed_the_width() -> None:
    for width in (60, 80, 100, 140, 200):
        lines = printed(PIPELINE, width)
        assert len(lines) == 1 + len(PIPELINE.spans)
        assert max(map(len, lines)) <= width


def test_wide_terminals_cut_nothing() -> None:
    text = "\n".join(printed(PIPELINE, 160))
    assert "…" not in text
    assert "214→28 tokens, $0.000049, gpt-4o-mini-2024-07-18" in text
    assert "✗ ConnectError: refused" in text


def test_a_span_whose_parent_is_missing_stands_at_the_top_marked() -> None:
    assert {"8"} == PIPELINE.orphans
    line = next(line for line in printed(PIPELINE, 140) if "text_completion" in line)
    assert line.startswith("inference-svc text_completion")
    assert "parent missing, 6 tokens" in line


def test_errors_are_red() -> None:
    lines = tree.render(PIPELINE, 140)
    failed = next(line for line in lines if "POST /documents" in line.plain)
    sound = next(line for line in lines if "POST /search" in line.plain)
    assert [str(part.style) for part in failed.spans].count("bold red") == 2
    assert not any("red" in str(part.style) for part in sound.spans)


def test_replicas_are_told_apart_only_when_there_are_several() -> None:
    both = Trace(
        "1" * 32,
        (
            span("1", None, "gateway", "GET /", 0, 10),
            span("2", "1", "inference-svc", "POST /a", 1, 5, instance="11111111-aaaa"),
            span("3", "1", "inference-svc", "POST /b", 5, 9, instance="22222222-bbbb"),
        ),
    )
    heading, root, first, second = printed(both, 100)
    assert heading.endswith("3 spans, 2 services, 10 ms")
    assert "replica" not in root
    assert first.endswith("replica 11111111")
    assert second.endswith("replica 22222222")


def test_a_trace_without_duration_has_a_bar() -> None:
    lines = printed(Trace("1" * 32, (span("1", None, "gateway", "GET /", 5, 5),)), 100)
    assert "╸" in lines[1]
    assert lines[0].endswith("1 span, 1 service, 0 µs")


def test_text_from_outside_stays_on_its_line() -> None:
    name, message = "GET\n/\x1b[2J", "first line\nsecond line"
    lines = printed(
        Trace("1" * 32, (span("1", None, "gateway", name, 0, 1, failed=True, message=message),)),
        100,
    )
    assert len(lines) == 2
    assert lines[1].startswith("gateway GET / [2J ")
    assert lines[1].endswith("✗ first line second line")
