"""Every file of the stack that has a checker passes it."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from testcontainers.compose import DockerCompose

from tests.containers.conftest import BASE, LITE, env_file
from tests.support.processes import ROOT

GPU, CLOUD = "deploy/compose.gpu.yml", "deploy/compose.grafana-cloud.yml"
CLOUD_SETTINGS = {
    "GRAFANA_CLOUD_OTLP_ENDPOINT": "https://otlp.example/otlp",
    "GRAFANA_CLOUD_INSTANCE_ID": "1",
    "GRAFANA_CLOUD_TOKEN": "planted-token",
}


def services(folder: Path, *files: str, **settings: str) -> dict[str, Any]:
    """What Compose makes of the files, by service."""
    with env_file(folder, **settings) as file:
        config = DockerCompose(ROOT, list(files), env_file=file).get_config()
    return dict(config["services"])


@pytest.mark.parametrize(
    "files",
    [(BASE,), (BASE, LITE), (BASE, GPU), (BASE, CLOUD), (BASE, LITE, GPU), (BASE, CLOUD, GPU)],
    ids=lambda files: "+".join(Path(file).stem for file in files),
)
def test_every_combination_of_compose_files_is_valid(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    assert "gateway" in services(tmp_path, *files, **CLOUD_SETTINGS)


def test_only_the_collector_knows_the_credentials_of_grafana_cloud(tmp_path: Path) -> None:
    found = services(tmp_path, BASE, CLOUD, **CLOUD_SETTINGS)
    assert "planted-token" in str(found.pop("otel-collector"))
    assert "planted-token" not in str(found)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("GRAFANA_CLOUD_OTLP_ENDPOINT", "the OTLP gateway of the stack"),
        ("GRAFANA_CLOUD_INSTANCE_ID", "the instance id of the stack"),
        ("GRAFANA_CLOUD_TOKEN", "an access policy token"),
    ],
)
def test_without_its_credentials_grafana_cloud_says_which_are_missing(
    missing: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        services(tmp_path, BASE, CLOUD, **{**CLOUD_SETTINGS, missing: ""})
    assert words in refused.value.stderr.decode()


def test_nothing_is_published_beyond_this_machine(tmp_path: Path) -> None:
    for files in ((BASE,), (BASE, LITE)):
        found = services(tmp_path, *files)
        ports = [port for service in found.values() for port in service.get("ports", [])]
        assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool here")
    configuration = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    version = subprocess.run(["promtool", "--version"], capture_output=True, text=True, check=True)
    if "version 2." in version.stdout + version.stderr:
        del configuration["otlp"]  # newer than promtool 2
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration))
    done = subprocess.run(
        ["promtool", "check", "config", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
