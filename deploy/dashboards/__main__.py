"""`python -m deploy.dashboards` writes the dashboards and rules for Grafana and Prometheus."""

from deploy.dashboards.files import files

for path, text in files().items():
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    print(f"wrote {path}")
