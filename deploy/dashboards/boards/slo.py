"""The objectives, and how much of the permitted failure is used up."""

from deploy.dashboards import others
from deploy.dashboards.page import Dashboard, Variable
from deploy.dashboards.panels import Row, instant, query, stat, table, timeseries

CHOSEN = '{slo=~"$slo"}'
BURN = 14.4
"""Burning so fast, a thirty-day budget lasts two days: the Site Reliability Workbook's page."""

DASHBOARD = Dashboard(
    "o11y-slo",
    "SLO",
    "Error budget left and how fast it burns, by objective.",
    [
        stat(
            "Error budget left",
            "Share of the failures the objective permits that has not happened yet.",
            "percentunit",
            query(f"{others.BUDGET}{CHOSEN}", "{{slo}}"),
            width=24,
            thresholds=[],
            names=True,
        ),
        Row("Budget and burn"),
        timeseries(
            "Error budget left",
            "Below zero the objective is missed.",
            "percentunit",
            query(f"{others.BUDGET}{CHOSEN}", "{{slo}}"),
            width=12,
            limits={"max": 1},
        ),
        timeseries(
            "Burn rate, one hour",
            f"1 uses the budget up exactly in its time; {BURN} wakes somebody.",
            "short",
            query(
                f"{others.ERRORS}1h{CHOSEN} / on (slo) (1 - {others.OBJECTIVE}{CHOSEN})",
                "{{slo}}",
            ),
            width=12,
            thresholds=[(BURN, "red")],
        ),
        timeseries(
            "Errors, five minutes",
            "Share of events that missed the objective.",
            "percentunit",
            query(f"{others.ERRORS}5m{CHOSEN}", "{{slo}}"),
            width=12,
        ),
        timeseries(
            "Burn rate, six hours",
            "A slower fire: 6 wakes somebody.",
            "short",
            query(
                f"{others.ERRORS}6h{CHOSEN} / on (slo) (1 - {others.OBJECTIVE}{CHOSEN})",
                "{{slo}}",
            ),
            width=12,
            thresholds=[(6, "red")],
        ),
        table(
            "Objectives",
            "What is promised.",
            "percentunit",
            instant(f"{others.OBJECTIVE}{CHOSEN}", table=True),
        ),
        table(
            "Alerts firing",
            "Each has a section in the runbook.",
            "short",
            instant('ALERTS{alertstate="firing"}', table=True),
        ),
    ],
    [Variable("slo", "Objective", others.OBJECTIVE, "slo")],
    "now-24h",
)
