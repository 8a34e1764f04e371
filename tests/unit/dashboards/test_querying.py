"""Queries of panels asked of a Prometheus, and their answers in words."""

import pytest

from deploy.dashboards.querying import concrete, figure, legend


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
