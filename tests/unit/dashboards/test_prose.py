"""What people read calls panels, dashboards and label values by the names they find there."""

import re
from pathlib import Path

import pytest

from deploy.dashboards.grafana import DASHBOARDS
from o11y.telemetry.bounded import OVERFLOW
from o11y.telemetry.identity import NO_TENANT
from tests.support.processes import ROOT

FOLDER = "o11y-4-ai"
"""Grafana's folder of the dashboards."""

PAGES = [
    *(ROOT / name for name in ("README.md", "deploy/RUNBOOK.md", "gateway/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]

of_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """The page's sentences, each on one line, without examples."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    return re.sub(r"\s+", " ", text)


@of_every_page
def test_what_is_in_italics_is_a_dashboard_or_a_panel(page: Path) -> None:
    known = {dashboard.title for dashboard in DASHBOARDS} | {FOLDER}
    known |= {panel.title for dashboard in DASHBOARDS for panel in dashboard.panels}
    named = re.findall(r"(?<![*\w/])\*([^*\s`][^*`]*)\*(?!\*)", prose(page).replace("**", ""))
    assert set(named) <= known


@of_every_page
def test_a_tenant_that_is_nobodys_name_is_called_as_the_label_says(page: Path) -> None:
    named = re.findall(r"tenants?\b[^.;]*?`(_?(?:other|none))`", prose(page))
    named += re.findall(r"`(_?other)`", prose(page))
    assert set(named) <= {OVERFLOW, NO_TENANT}


def test_the_runbook_says_who_shares_a_label() -> None:
    assert f"tenant `{OVERFLOW}`" in prose(ROOT / "deploy/RUNBOOK.md")
