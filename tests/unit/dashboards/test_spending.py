"""Budgets on the dashboard: when they run out at today's pace."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.dashboards.boards import spending
from gateway.spending import ALL
from tests.unit.dashboards.promtool import complaints, given, needs_promtool

HOUR = 3600


@dataclass(frozen=True)
class Case:
    """What is spent at a time of the first of January, what is left, and for how long it lasts."""

    name: str
    at: str
    spent: float
    left: dict[str, float]
    lasts: dict[str, float]
    """Hours, by period; of those that last until they are filled again nothing is told."""


CASES = [
    Case(
        "half a dollar an hour",
        at="12h",
        spent=6,
        left={"day": 4, "month": 100, "total": 1000},
        lasts={"day": 8, "month": 200, "total": 2000},
    ),
    Case(
        "enough until midnight and until February",
        at="12h",
        spent=6,
        left={"day": 6.1, "month": 367, "total": 6.1},
        lasts={"total": 12.2},
    ),
    Case("used up", at="18h", spent=9, left={"day": 0, "month": -1}, lasts={"day": 0, "month": 0}),
    Case("nothing is spent today", at="18h", spent=0, left={"day": 1, "total": 1}, lasts={}),
    Case("soon after midnight", at="1m", spent=1, left={"day": 1}, lasts={"day": 1}),
]


@needs_promtool
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_budget_runs_out_at_todays_pace_or_lasts(case: Case, tmp_path: Path) -> None:
    owner = 'tenant="acme", key="ci"'
    series = {
        f'{name}{{{owner}, period="{period}", instance="{replica}"}}': f"{value}+0x1440"
        for replica in ("a", "b")
        for name, period, value in [
            ("spend_usd", "day", case.spent),
            *(("budget_remaining_usd", period, left) for period, left in case.left.items()),
        ]
    }
    asked = {
        "expr": f"round({spending.runs_out({})})",
        "eval_time": case.at,
        "exp_samples": [
            {"labels": f'{{{owner}, period="{period}"}}', "value": hours * HOUR}
            for period, hours in case.lasts.items()
        ],
    }
    tests = [{"interval": "1m", "input_series": given(series), "promql_expr_test": [asked]}]
    assert complaints({"tests": tests}, tmp_path) == ""


def test_a_tenants_sums_are_asked_for_by_the_key_that_the_gateway_gives_them() -> None:
    assert spending.ALL == ALL
