"""The trust boundary: what the gateway believes of the headers of requests from outside.

Baggage from outside is not read. A header that can't be an id, or a trace, is as good as none:
headers are often the work of something between, and a call shouldn't fail for them.
"""

import re
from collections.abc import Callable, Mapping
from typing import Literal

from opentelemetry.context import Context
from opentelemetry.trace import Link, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from o11y.telemetry.identity import with_identity
from o11y.web.server_span import Extracted

USER, SESSION, TENANT = "x-user-id", "x-session-id", "x-tenant-id"

_ID = re.compile(r"[\x20-\x7e]{1,128}")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

TraceContext = Literal["continue", "link"]


class TrustBoundary:
    """Extracts the context of a request from outside: its trace, user, session and tenant.

    `continue` makes a request part of its caller's trace, which may decide that nothing is
    recorded; `link` begins a trace of our own, with a link to the caller's span. The tenant of a
    header counts where `trusts_tenant`: a caller with a key has the key's.
    """

    def __init__(
        self, trace_context: TraceContext, trusts_tenant: Callable[[], bool] = lambda: True
    ) -> None:
        self._links = trace_context == "link"
        self._trusts_tenant = trusts_tenant
        self._traces = TraceContextTextMapPropagator()

    def __call__(self, headers: Mapping[str, str]) -> Extracted:
        ours = with_identity(
            Context(),
            _valid(_ID, headers.get(USER)),
            _valid(_ID, headers.get(SESSION)),
            _valid(_TENANT, headers.get(TENANT)) if self._trusts_tenant() else None,
        )
        if "traceparent" not in headers:
            return Extracted(ours)
        joined = self._traces.extract(headers, ours)
        if not self._links:
            return Extracted(joined)
        theirs = get_current_span(joined).get_span_context()
        return Extracted(ours, [Link(theirs)] if theirs.is_valid else [])


def _valid(pattern: re.Pattern[str], value: str | None) -> str | None:
    return value if value is not None and pattern.fullmatch(value) else None
