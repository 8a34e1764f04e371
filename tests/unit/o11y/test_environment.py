"""OpenTelemetry's variables are checked and completed before anything of it is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from o11y.telemetry import environment
from o11y.telemetry.environment import completed, faults

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        (PROTOCOL, "http/json", "should be 'http/protobuf' or 'grpc' (got 'http/json')"),
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "udp", "'grpc' (got 'udp')"),
        (ENDPOINT, "http://collector:port", "Port could not be cast"),
        (ENDPOINT, "http://:4317", "not an address"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://", "not an address"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem", "no such file (got '/nowhere.pem')"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/nowhere.pem", "no such file"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli", "'none', 'gzip' or 'deflate'"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "should be a number (got 'soon')"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "0", "should be greater than 0"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "sums", "'lowmemory' (got 'sums')"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "some", "'trace_based' (got 'some')"),
        ("OTEL_PROPAGATORS", "tracecontext,b3", "no installed package brings 'b3'"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "no installed package brings 'zipkin'"),
        ("OTEL_LOGS_EXPORTER", "otlp,paper", "no installed package brings 'paper'"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "no installed package brings 'sometimes'"),
        ("OTEL_PYTHON_ID_GENERATOR", "xray", "no installed package brings 'xray'"),
        ("OTEL_PYTHON_CONFIGURATOR", "configurator", "should be 'o11y', the services' own"),
        ("OTEL_SDK_DISABLED", "perhaps", "should be 'true' or 'false'"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "should be a whole number from 1 (got '0')"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "1.5", "should be a whole number (got '1.5')"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096", "should not be above the queue's 2048"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "nan", "should be a number from 0"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1", "should be a whole number from 0"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "many", "should be a whole number"),
        ("OTEL_CONFIG_FILE", "/nowhere.yaml", "no such file (got '/nowhere.yaml')"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable(
    variable: str, value: str, words: str
) -> None:
    [line] = faults({variable: value})
    assert line.startswith(f"{variable}: ")
    assert words in line


@pytest.mark.parametrize("ratio", ["1.5", "nan", "half"])
def test_a_ratio_is_from_0_to_1(ratio: str) -> None:
    given = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": ratio}
    [line] = faults(given)
    assert line.startswith("OTEL_TRACES_SAMPLER_ARG: should be a number")


def test_grpc_does_not_deflate() -> None:
    given = {ENDPOINT: "collector:4317", "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "deflate"}
    [line] = faults(given)
    assert line.startswith("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION: gRPC knows 'none' and 'gzip'")


@pytest.mark.parametrize("text", ["Authorization=Basic a\nb", "key=%0D%0Ax: y", "key=caf%C3%A9"])
def test_a_header_that_cannot_be_sent_is_refused_and_not_shown(text: str) -> None:
    assert faults({"OTEL_EXPORTER_OTLP_HEADERS": text}) == [
        "OTEL_EXPORTER_OTLP_HEADERS: a header holds a character that cannot be sent"
    ]


def test_every_bad_variable_has_its_line() -> None:
    lines = faults({"OTEL_BSP_MAX_QUEUE_SIZE": "0", PROTOCOL: "udp"})
    assert {line.partition(":")[0] for line in lines} == {"OTEL_BSP_MAX_QUEUE_SIZE", PROTOCOL}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {ENDPOINT: "", "OTEL_TRACES_SAMPLER": " "},
        {ENDPOINT: "collector:4317", PROTOCOL: "GRPC"},
        {"OTEL_TRACES_SAMPLER": "PARENTBASED_TraceIdRatio", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
        {"OTEL_PROPAGATORS": "tracecontext, baggage"},
        {"OTEL_PROPAGATORS": "none"},
        {"OTEL_TRACES_EXPORTER": "otlp,console"},
    ],
)
def test_a_good_value_is_no_fault(given: dict[str, str]) -> None:
    assert faults(given) == []


def exporter(given: dict[str, str], signal: str) -> tuple[str | None, str | None, str | None]:
    """What a signal's own variables say: exporter, protocol and endpoint."""
    found = {**given, **completed(given)}
    own = f"OTEL_EXPORTER_OTLP_{signal}"
    return (
        found.get(f"OTEL_{signal}_EXPORTER"),
        found.get(f"{own}_PROTOCOL"),
        found.get(f"{own}_ENDPOINT"),
    )


@pytest.mark.parametrize(
    ("given", "traces", "logs"),
    [
        ({}, ("none", None, None), ("none", None, None)),
        (
            {ENDPOINT: "collector:4317"},
            ("otlp", "grpc", "http://collector:4317"),
            ("otlp", "grpc", "http://collector:4317"),
        ),
        (
            {ENDPOINT: "https://otlp.example/otlp"},
            ("otlp", "http/protobuf", "https://otlp.example/otlp/v1/traces"),
            ("otlp", "http/protobuf", "https://otlp.example/otlp/v1/logs"),
        ),
        (
            {ENDPOINT: "collector:4317", PROTOCOL: "http/protobuf"},
            ("otlp", "http/protobuf", "http://collector:4317/v1/traces"),
            ("otlp", "http/protobuf", "http://collector:4317/v1/logs"),
        ),
        (
            {
                ENDPOINT: "collector:4317",
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://loki:3100/otlp/v1/logs",
            },
            ("otlp", "grpc", "http://collector:4317"),
            ("otlp", "http/protobuf", "http://loki:3100/otlp/v1/logs"),
        ),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "tempo:4317"},
            ("otlp", "grpc", "http://tempo:4317"),
            ("none", None, None),
        ),
        (
            {ENDPOINT: "collector:4317", "OTEL_EXPORTER_OTLP_INSECURE": "false"},
            ("otlp", "grpc", "https://collector:4317"),
            ("otlp", "grpc", "https://collector:4317"),
        ),
        (
            {ENDPOINT: "collector:4317", "OTEL_LOGS_EXPORTER": "none"},
            ("otlp", "grpc", "http://collector:4317"),
            ("none", "grpc", "http://collector:4317"),
        ),
    ],
)
def test_a_signal_goes_where_endpoint_and_protocol_say(
    given: dict[str, str],
    traces: tuple[str | None, str | None, str | None],
    logs: tuple[str | None, str | None, str | None],
) -> None:
    assert (exporter(given, "TRACES"), exporter(given, "LOGS")) == (traces, logs)


def test_what_is_complete_stays_as_it_is() -> None:
    given = {
        ENDPOINT: "collector:4318",
        "OTEL_EXPORTER_OTLP_HEADERS": "123:token",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    once = {key: value for key, value in {**given, **completed(given)}.items() if value}
    twice = {key: value for key, value in {**once, **completed(once)}.items() if value}
    assert once == twice


def test_credentials_are_encoded_in_every_signals_headers() -> None:
    found = completed(
        {
            "OTEL_EXPORTER_OTLP_HEADERS": "123:token",
            "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "Authorization=Basic 4:other,X-Scope-OrgID=1",
        }
    )
    assert found["OTEL_EXPORTER_OTLP_HEADERS"] == "Authorization=Basic%20MTIzOnRva2Vu"
    assert found["OTEL_EXPORTER_OTLP_LOGS_HEADERS"] == (
        "Authorization=Basic%20NDpvdGhlcg%3D%3D,X-Scope-OrgID=1"
    )


def test_a_signal_may_leave_uncompressed_while_others_are_not() -> None:
    """gRPC's exporters know no word for none: the common variable goes, the signals' are set."""
    found = completed(
        {
            ENDPOINT: "collector:4317",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "none",
        }
    )
    assert [
        found[f"OTEL_EXPORTER_OTLP_{scope}COMPRESSION"] for scope in ("", "TRACES_", "LOGS_")
    ] == [None, "gzip", None]


def test_a_queue_that_is_small_is_sent_whole() -> None:
    assert completed({"OTEL_BSP_MAX_QUEUE_SIZE": "20"})["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] == "20"


def test_a_variable_that_is_empty_is_as_good_as_none() -> None:
    assert completed({"OTEL_EXPORTER_OTLP_TIMEOUT": ""})["OTEL_EXPORTER_OTLP_TIMEOUT"] is None


def test_a_configuration_file_is_the_only_source(tmp_path: Path) -> None:
    file = tmp_path / "otel.yaml"
    file.touch()
    given = {"OTEL_CONFIG_FILE": str(file), ENDPOINT: "collector:4317"}
    assert (faults(given), completed(given)) == ([], {})


def test_the_check_needs_nothing_of_opentelemetry() -> None:
    code = (
        "import sys\n"
        "import o11y.telemetry.environment\n"
        "print([name for name in sys.modules if 'opentelemetry' in name])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_fault_stops_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(environment.OPT_IN, "http")
    monkeypatch.setenv(environment.DISABLED, "none")
    Path(".env").write_text("OTEL_PROPAGATORS=b3\n")
    monkeypatch.setenv("OTEL_PROPAGATORS", "")  # so that it is gone afterwards
    monkeypatch.delenv("OTEL_PROPAGATORS")
    with pytest.raises(SystemExit) as stopped:
        environment.prepare()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "OTEL_PROPAGATORS: no installed package brings 'b3' (got 'b3')\n"
    )


@pytest.mark.parametrize(
    ("asked", "names"),
    [("", "http"), ("database", "database,http"), ("http/dup", "http/dup"), ("http", "http")],
)
def test_instrumentations_use_the_stable_names_and_leave_our_clients_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: str, names: str
) -> None:
    """Names are asked for before the first instrumentation is made, which reads them once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(environment.OPT_IN, asked)
    monkeypatch.delenv(environment.DISABLED, raising=False)
    for variable in completed({}):
        monkeypatch.setenv(variable, "")
    environment.prepare()
    assert os.environ[environment.OPT_IN] == names
    assert os.environ[environment.DISABLED] == "httpx,httpx2"


def test_who_asks_for_other_instrumentations_gets_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(environment.OPT_IN, "http")
    monkeypatch.setenv(environment.DISABLED, "none")
    for variable in completed({}):
        monkeypatch.setenv(variable, "")
    environment.prepare()
    assert os.environ[environment.DISABLED] == "none"
