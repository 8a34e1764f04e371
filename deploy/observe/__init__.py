"""Dashboards and alerts as code: `python -m deploy.observe` writes what reads them."""
