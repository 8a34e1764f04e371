"""Dashboards and alerts as code: `python -m deploy.dashboards` writes what reads them."""
