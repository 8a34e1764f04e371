"""The picture of a trace: whole, well-formed, and without a word to another host."""

import re
from xml.etree import ElementTree

from deploy.demo.picture import drawn
from deploy.demo.tempo import Span, Trace
from o11y.telemetry import schema

SVG = "{http://www.w3.org/2000/svg}"


def test_a_trace_has_a_line_for_each_span() -> None:
    child = Span("2", "1", "chat m", "llm-proxy", "i", 10**9, 2 * 10**9, {schema.COST_USD: 0.25})
    failed = Span(
        "3", "1", "search", "vector-svc", "i", 0, 10**9, {schema.ERROR_TYPE: "timeout"}, True
    )
    root = Span("1", None, "POST /chat", "gateway", "i", 0, 2 * 10**9, {})
    picture = drawn(Trace("ab" * 16, (root, failed, child)))
    texts = ElementTree.fromstring(picture).iter(f"{SVG}text")
    words = " ".join(text.text or "" for text in texts).replace("\xa0", " ")
    for shown in ("ab" * 16, "POST /chat", "chat m", "search", "2.00 s", "$0.25", "✗ timeout"):
        assert shown in words
    assert set(re.findall(r"https?://[^\s\"']+", picture)) == {"http://www.w3.org/2000/svg"}
