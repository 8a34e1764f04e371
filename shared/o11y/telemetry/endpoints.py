"""Endpoints and credentials of OTLP, as people write them.

The protocol follows the endpoint: a path that ends in `/otlp` or holds `/v1/` is OTLP/HTTP, as is
port 4318; a bare `host:port` is gRPC. Signal paths are those of the OTLP specification
(`/v1/traces`, `/v1/metrics`, `/v1/logs`).
"""

import base64
from urllib.parse import unquote, urlsplit


def protocol_of(endpoint: str) -> str:
    """`http/protobuf` or `grpc`, from the shape of the endpoint."""
    url = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    path = url.path.rstrip("/")
    if path.endswith("/otlp") or "/v1/" in f"{path}/" or url.port == 4318:
        return "http/protobuf"
    return "grpc"


def http_base(endpoint: str) -> str:
    """The endpoint without a trailing slash or signal path, with a scheme."""
    base = endpoint if "://" in endpoint else f"http://{endpoint}"
    for signal in ("traces", "metrics", "logs"):
        base = base.rstrip("/").removesuffix(f"/v1/{signal}")
    return base.rstrip("/")


def grpc_url(endpoint: str, *, bare_is_insecure: bool = True) -> str:
    """The endpoint as `http://host:port`, which is without TLS, or `https://host:port`.

    One without a scheme is without TLS, unless told otherwise. A user in it is left out: gRPC has
    no use for it.
    """
    scheme, _, rest = endpoint.rpartition("://")
    secure = scheme.lower() == "https" if scheme else not bare_is_insecure
    host = rest.partition("/")[0].rpartition("@")[2]
    return f"{'https' if secure else 'http'}://{host}"


def parse_headers(value: str) -> dict[str, str]:
    """Headers of `key=value,key=value`, percent-decoded (W3C baggage form, OTLP specification).

    Credentials are completed: `Authorization=Basic user:token` and an entry that is nothing but
    `user:token` become Basic with base64; what is encoded already is left alone.
    """
    headers = {}
    for pair in value.split(","):
        key, separator, text = (unquote(part).strip() for part in pair.partition("="))
        if ":" in key:
            headers["Authorization"] = unquote(pair).strip()
        elif separator and key:
            headers[key] = text
    for key in headers:
        if key.lower() == "authorization":
            headers[key] = _credentials(headers[key])
    return headers


def _credentials(value: str) -> str:
    scheme, _, rest = value.rpartition(" ")
    if ":" not in rest or scheme.lower() not in ("", "basic"):
        return value
    return f"Basic {base64.b64encode(rest.encode()).decode()}"
