"""A Prometheus process that scrapes a gateway: figures for dashboards where the full stack isn't.

Debian's is 2.42, which takes no OTLP. The gateway's federated `/metrics` has the same series, with
`service` where the OTLP endpoint writes `service_name`.
"""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

START_SECONDS = 30.0
END_SECONDS = 10.0


class PrometheusError(Exception):
    """Prometheus is missing or didn't start; the message is the line that says why."""


def scrape(job: str, url: str) -> dict[str, Any]:
    """Scraping of one address."""
    address = httpx2.URL(url)
    return {
        "job_name": job,
        "scheme": address.scheme,
        "metrics_path": address.path if address.path != "/" else "/metrics",
        "honor_labels": True,
        "static_configs": [{"targets": [f"{address.host}:{address.port}"]}],
        "metric_relabel_configs": [
            {
                "source_labels": ["service"],
                "regex": "(.+)",
                "target_label": "service_name",
            }
        ],
    }


@contextmanager
def prometheus(
    folder: Path,
    scraped: Mapping[str, str],
    rules: Sequence[Path] = (),
    interval: str = "1s",
) -> Iterator[str]:
    """Run `prometheus` until the block ends, with its data in `folder`; its base URL.

    `scraped` are addresses by job. Raises PrometheusError.
    """
    command = shutil.which("prometheus")
    if command is None:
        raise PrometheusError("prometheus is missing: apt-get install prometheus")
    config = folder / "prometheus.yml"  # JSON is YAML
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": interval, "evaluation_interval": interval},
                "rule_files": [str(path.absolute()) for path in rules],
                "scrape_configs": [scrape(job, url) for job, url in scraped.items()],
            }
        )
    )
    port = _free_port()
    log = folder / "prometheus.log"
    words = [command, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    words += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(process, url, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    with httpx2.Client(timeout=2, trust_env=False) as http:
        while True:
            try:
                if http.get(f"{url}/-/ready").status_code == 200:
                    return
            except httpx2.HTTPError:
                pass  # not listening yet
            if process.poll() is not None or time.monotonic() > until:
                words = log.read_text().strip().splitlines() or ["it said nothing"]
                raise PrometheusError(f"prometheus did not start: {words[-1][:300]}")
            time.sleep(0.1)
