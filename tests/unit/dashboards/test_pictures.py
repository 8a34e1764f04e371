"""The pictures: whole, well-formed, and true to what they are given."""

from xml.etree import ElementTree

import pytest

from deploy.dashboards.dashboard_picture import dashboards_picture, figure
from deploy.dashboards.grafana import DASHBOARDS
from deploy.dashboards.querying import Curve, concrete, legend
from deploy.dashboards.trace_picture import trace_picture
from deploy.demo.tempo import Span, Trace
from o11y.telemetry import schema

SVG = "{http://www.w3.org/2000/svg}"
PAGES = [dashboard.json() for dashboard in DASHBOARDS]


def words(picture: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_every_panel_is_in_its_place_with_what_was_found() -> None:
    page = PAGES[0]
    shown = next(panel for panel in page["panels"] if panel["type"] == "timeseries")
    curves = [Curve("a <series>", [(0, 1.0), (1, 3.0)]), Curve("another", [])]
    picture = dashboards_picture(PAGES, {(page["uid"], shown["id"]): curves})
    told = words(picture)
    for each in PAGES:
        assert each["title"] in told
        for panel in each["panels"]:
            assert any(text.startswith(panel["title"][:10]) for text in told), panel["title"]
    assert "a <series>" in told
    assert figure(3.0, shown["fieldConfig"]["defaults"]["unit"]) in told
    [line] = ElementTree.fromstring(picture).iter(f"{SVG}polyline")
    assert len(line.attrib["points"].split()) == 2


def test_a_trace_has_a_line_and_a_bar_for_each_span() -> None:
    child = Span("2", "1", "chat m", "llm-proxy", "i", 10**9, 2 * 10**9, {schema.COST_USD: 0.25})
    failed = Span(
        "3", "1", "search", "vector-svc", "i", 0, 10**9, {schema.ERROR_TYPE: "timeout"}, True
    )
    root = Span("1", None, "POST /chat", "gateway", "i", 0, 2 * 10**9, {})
    picture = trace_picture(Trace("ab" * 16, (root, failed, child)))
    told = words(picture)
    assert {"POST /chat", "chat m", "search", "2.00 s", "$0.25", "✗ timeout"} <= set(told)
    bars = [box for box in ElementTree.fromstring(picture).iter(f"{SVG}rect") if "x" in box.attrib]
    begun = [float(bar.attrib["x"]) for bar in bars]
    assert begun[0] == begun[1] < begun[2]


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0.25, "s", "250 ms"),
        (0.125, "percentunit", "12.5 %"),
        (0.5, "currencyUSD", "$0.5"),
        (2.5e9, "bytes", "2,500 MB"),
        (1234.5, "short", "1,234"),
        (0.5, "reqps", "0.5/s"),
        (float("nan"), "s", "no number"),
    ],
)
def test_figures_are_short(value: float, unit: str, said: str) -> None:
    assert figure(value, unit) == said


def test_a_query_is_made_concrete_and_its_series_named() -> None:
    asked = concrete('sum(rate(a{model=~"$model", b=~"${tenant}"}[$__rate_interval]))', "5m")
    assert asked == 'sum(rate(a{model=~".+", b=~".+"}[5m]))'
    assert legend("{{model}} at {{ host }}", {"model": "m", "host": "h"}) == "m at h"
    assert legend("__auto", {"__name__": "n", "model": "m"}) == "m"
