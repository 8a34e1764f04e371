"""OpenTelemetry's variables: checked before anything else is loaded, and completed.

The SDK reads its variables from `os.environ` and takes a default where it can't read one. Here a
bad value stops the process instead, with one line that names the variable. What is completed are
the promises of this distribution: the protocol that follows from an endpoint's form, credentials
as people write them, and defaults that suit a small system. Nothing of OpenTelemetry is imported:
a propagator that is not installed breaks the import itself.
"""

import math
import os
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from dotenv import load_dotenv

from o11y.telemetry.endpoints import grpc_url, http_base, parse_headers, protocol_of

SIGNALS = ("TRACES", "METRICS", "LOGS")
HTTP = "http/protobuf"
GRPC = "grpc"
OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
FORMER_NAMES = "gen_ai_latest_experimental/dup"
"""In OPT_IN: metrics that the GenAI conventions have renamed are shown under both names."""
DISABLED = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
CONFIG_FILE = "OTEL_CONFIG_FILE"
NAME = "o11y"
"""The distribution's name, among those that are installed."""
DEFAULT_BATCH = 512
"""Spans or log records of one export (SDK specification)."""

Check = Callable[[str], str | None]
"""Says what is wrong with a value, or None."""


def _one_of(*values: str) -> Check:
    names = [repr(value) for value in values]

    def check(value: str) -> str | None:
        if value.strip().lower() in values:
            return None
        return f"should be {', '.join(names[:-1])} or {names[-1]}"

    return check


def _ours(value: str) -> str | None:
    return None if value == NAME else f"should be {NAME!r}, the services' own"


def _number(least: float, most: float = math.inf, *, whole: bool = False) -> Check:
    kind = "a whole number" if whole else "a number"
    bounds = f"from {least:g}" + (f" to {most:g}" if most < math.inf else "")

    def check(value: str) -> str | None:
        try:
            number = float(int(value)) if whole else float(value)
        except ValueError:
            return f"should be {kind}"
        return None if least <= number <= most else f"should be {kind} {bounds}"

    return check


def _positive(value: str) -> str | None:
    reason = _number(0)(value)
    return reason or (None if float(value) > 0 else "should be greater than 0")


def _address(value: str) -> str | None:
    try:
        url = urlsplit(value if "://" in value else f"//{value}")
        return None if url.hostname and url.port != 0 else "not an address"
    except ValueError as error:
        return str(error)


def _headers(value: str) -> str | None:
    text = unquote(value)
    if text.isascii() and text.isprintable():
        return None
    return "a header holds a character that cannot be sent"


def _file(value: str) -> str | None:
    return None if Path(value).is_file() else "no such file"


def _configuration(value: str) -> str | None:
    if find_spec("opentelemetry.configuration") is None:
        return "needs the package opentelemetry-configuration"
    return _file(value)


def _installed(group: str, *known: str) -> Check:
    """Names, separated by commas, of components that packages bring by entry points."""

    def check(value: str) -> str | None:
        for name in (part.strip() for part in value.split(",")):
            if name in known or entry_points(group=group, name=name):
                continue
            return f"no installed package brings {name!r}"
        return None

    return check


def _exporters(group: str) -> Check:
    return _installed(group, "none", "otlp")


_EXPORT: Mapping[str, Check] = {
    "ENDPOINT": _address,
    "PROTOCOL": _one_of(HTTP, GRPC),
    "HEADERS": _headers,
    "COMPRESSION": _one_of("none", "gzip", "deflate"),
    "TIMEOUT": _positive,
    "CERTIFICATE": _file,
    "CLIENT_CERTIFICATE": _file,
    "CLIENT_KEY": _file,
    "INSECURE": _one_of("true", "false"),
}
_COUNT = _number(1, whole=True)
_LIMIT = _number(0, whole=True)
_RATIO_SAMPLERS = ("traceidratio", "parentbased_traceidratio")

_SAMPLERS = _installed("opentelemetry_traces_sampler")

CHECKS: Mapping[str, Check] = {
    CONFIG_FILE: _configuration,
    "OTEL_PYTHON_CONFIGURATOR": _ours,
    "OTEL_SDK_DISABLED": _one_of("true", "false"),
    "OTEL_PROPAGATORS": _installed("opentelemetry_propagator", "none"),
    "OTEL_TRACES_EXPORTER": _exporters("opentelemetry_traces_exporter"),
    "OTEL_METRICS_EXPORTER": _exporters("opentelemetry_metrics_exporter"),
    "OTEL_LOGS_EXPORTER": _exporters("opentelemetry_logs_exporter"),
    "OTEL_TRACES_SAMPLER": lambda value: _SAMPLERS(value.lower()),
    "OTEL_PYTHON_ID_GENERATOR": _installed("opentelemetry_id_generator"),
    "OTEL_METRICS_EXEMPLAR_FILTER": _one_of("always_on", "always_off", "trace_based"),
    "OTEL_METRIC_EXPORT_INTERVAL": _positive,
    "OTEL_METRIC_EXPORT_TIMEOUT": _positive,
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": _one_of(
        "cumulative", "delta", "lowmemory"
    ),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": _one_of(
        "explicit_bucket_histogram", "base2_exponential_bucket_histogram"
    ),
    **{
        f"OTEL_{processor}_{name}": _COUNT
        for processor in ("BSP", "BLRP")
        for name in ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE")
    },
    **{
        f"OTEL_{what}_LIMIT": _LIMIT
        for what in (
            "ATTRIBUTE_COUNT",
            "ATTRIBUTE_VALUE_LENGTH",
            "SPAN_ATTRIBUTE_COUNT",
            "SPAN_ATTRIBUTE_VALUE_LENGTH",
            "SPAN_EVENT_COUNT",
            "SPAN_LINK_COUNT",
            "EVENT_ATTRIBUTE_COUNT",
            "LINK_ATTRIBUTE_COUNT",
            "LOGRECORD_ATTRIBUTE_COUNT",
            "LOGRECORD_ATTRIBUTE_VALUE_LENGTH",
        )
    },
    **{
        f"OTEL_EXPORTER_OTLP_{scope}{name}": check
        for scope in ("", *(f"{signal}_" for signal in SIGNALS))
        for name, check in _EXPORT.items()
    },
}


def faults(environ: Mapping[str, str]) -> list[str]:
    """One line for each variable whose value can't be used; secrets are not shown."""
    given = _given(environ)
    lines = []
    for variable, check in CHECKS.items():
        if (value := given.get(variable)) and (reason := check(value)):
            shown = "" if variable.endswith("_HEADERS") else f" (got {value!r})"
            lines.append(f"{variable}: {reason}{shown}")
    return lines or _faults_together(given)


def _faults_together(given: Mapping[str, str]) -> list[str]:
    """One line for each variable that does not fit another one."""
    lines = []
    ratio = given.get("OTEL_TRACES_SAMPLER_ARG")
    is_ratio = given.get("OTEL_TRACES_SAMPLER", "").lower() in _RATIO_SAMPLERS
    if ratio and is_ratio and (reason := _number(0, 1)(ratio)):
        lines.append(f"OTEL_TRACES_SAMPLER_ARG: {reason} (got {ratio!r})")
    for processor in ("BSP", "BLRP"):
        batch = given.get(f"OTEL_{processor}_MAX_EXPORT_BATCH_SIZE")
        queue = given.get(f"OTEL_{processor}_MAX_QUEUE_SIZE", "2048")
        if batch and int(batch) > int(queue):
            variable = f"OTEL_{processor}_MAX_EXPORT_BATCH_SIZE"
            lines.append(f"{variable}: should not be above the queue's {queue} (got {batch!r})")
    for signal in SIGNALS:
        variable, compression = _of_signal(given, signal, "COMPRESSION")
        if _protocol(given, signal) == GRPC and compression.lower() == "deflate":
            lines.append(f"{variable}: gRPC knows 'none' and 'gzip' (got {compression!r})")
    return list(dict.fromkeys(lines))


def completed(environ: Mapping[str, str]) -> dict[str, str | None]:
    """The variables to set beside those given; None removes one. Empty with a configuration file,
    which is then the only source.
    """
    given = _given(environ)
    if CONFIG_FILE in given:
        return {}
    found: dict[str, str | None] = {
        "OTEL_BSP_SCHEDULE_DELAY": "1000",  # who looks at once should find the trace
        "OTEL_BLRP_SCHEDULE_DELAY": "1000",
        "OTEL_METRIC_EXPORT_INTERVAL": "10000",
        "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true",
    }
    for processor in ("BSP", "BLRP"):
        queue = int(given.get(f"OTEL_{processor}_MAX_QUEUE_SIZE", DEFAULT_BATCH))
        if queue < DEFAULT_BATCH:
            found[f"OTEL_{processor}_MAX_EXPORT_BATCH_SIZE"] = str(queue)
    found = {variable: value for variable, value in found.items() if variable not in given}
    for variable in CHECKS:
        if variable in environ and variable not in given:
            found[variable] = None  # some of its readers take what is empty for a value
    for scope in ("", *(f"{signal}_" for signal in SIGNALS)):
        variable = f"OTEL_EXPORTER_OTLP_{scope}HEADERS"
        if text := given.get(variable):
            pairs = parse_headers(text).items()
            found[variable] = ",".join(f"{key}={quote(value, safe='')}" for key, value in pairs)
    for signal in SIGNALS:
        found.update(_exported(given, signal))
    found["OTEL_EXPORTER_OTLP_COMPRESSION"] = None
    return found


def _exported(given: Mapping[str, str], signal: str) -> dict[str, str | None]:
    """The exporter's variables of one signal: they win over the common ones."""
    variable, endpoint = _of_signal(given, signal, "ENDPOINT")
    exporter = f"OTEL_{signal}_EXPORTER"
    found: dict[str, str | None] = {}
    if exporter not in given:
        found[exporter] = "otlp" if endpoint else "none"
    if not endpoint:
        return found
    protocol = _protocol(given, signal)
    is_own = variable == f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
    if protocol == GRPC:
        _, insecure = _of_signal(given, signal, "INSECURE")
        url = grpc_url(endpoint, bare_is_insecure=insecure.lower() != "false")
    elif is_own:
        url = endpoint if "://" in endpoint else f"http://{endpoint}"
    else:
        url = f"{http_base(endpoint)}/v1/{signal.lower()}"
    _, compression = _of_signal(given, signal, "COMPRESSION")
    # gRPC's exporter knows no word for none
    packed = None if compression.lower() in ("", "none") else compression.lower()
    return {
        **found,
        f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT": url,
        f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL": protocol,
        f"OTEL_EXPORTER_OTLP_{signal}_COMPRESSION": packed,
    }


def _of_signal(given: Mapping[str, str], signal: str, name: str) -> tuple[str, str]:
    """The variable that speaks for a signal, and its value."""
    variable = f"OTEL_EXPORTER_OTLP_{signal}_{name}"
    if variable not in given:
        variable = f"OTEL_EXPORTER_OTLP_{name}"
    return variable, given.get(variable, "").strip()


def _protocol(given: Mapping[str, str], signal: str) -> str:
    _, protocol = _of_signal(given, signal, "PROTOCOL")
    _, endpoint = _of_signal(given, signal, "ENDPOINT")
    return protocol.lower() or protocol_of(endpoint)


def _given(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are set; an empty one counts as unset (SDK specification)."""
    return {key: value for key, value in environ.items() if value.strip()}


def opt_into_stable_names() -> None:
    """Ask for the stable conventions of HTTP, besides what the environment asks for.

    Instrumentations read the variable once in a process, when the first of them is made.
    """
    if not {"http", "http/dup"} & _opted_in():
        os.environ[OPT_IN] = f"{os.environ.get(OPT_IN, '')},http".lstrip(",")


def wants_former_names() -> bool:
    """True where the environment asks for the former names of the GenAI metrics as well."""
    return FORMER_NAMES in _opted_in()


def _opted_in() -> set[str]:
    return {name.strip() for name in os.environ.get(OPT_IN, "").split(",")}


def prepare() -> None:
    """Check and complete the process's variables, or stop it with exit status 2.

    `.env` of the working directory fills in what the environment lacks.
    """
    load_dotenv(".env")
    opt_into_stable_names()
    # clients of ours make a span for each attempt; with these every health check of Chroma's, which
    # stands on httpx, would be a trace
    os.environ.setdefault(DISABLED, "httpx,httpx2")
    if lines := faults(os.environ):
        for line in lines:
            print(line, file=sys.stderr)
        raise SystemExit(2)
    for variable, value in completed(os.environ).items():
        if value is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = value
