"""Where requests from outside arrive: whose trace they belong to, and who their headers say they
are for.

Baggage from outside is not read. A header that can't be an id, or a trace, is as good as none:
headers are often the work of something between, and a call shouldn't fail for them.
"""

import re
from collections.abc import Mapping
from typing import Literal

from opentelemetry.context import Context
from opentelemetry.trace import Link, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from o11y.telemetry.identity import carrying
from o11y.web.server import Arrival

USER, SESSION, TENANT = "x-user-id", "x-session-id", "x-tenant-id"

_ID = re.compile(r"[\x20-\x7e]{1,128}")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

TraceContext = Literal["continue", "link"]


class Border:
    """`continue` makes a request part of its caller's trace, which may decide that nothing is
    recorded; `link` begins a trace of our own, with a link to the caller's span.
    """

    def __init__(self, trace_context: TraceContext) -> None:
        self._links = trace_context == "link"
        self._traces = TraceContextTextMapPropagator()

    def __call__(self, carried: Mapping[str, str]) -> Arrival:
        ours = carrying(
            Context(),
            _valid(_ID, carried.get(USER)),
            _valid(_ID, carried.get(SESSION)),
            _valid(_TENANT, carried.get(TENANT)),
        )
        if "traceparent" not in carried:
            return Arrival(ours)
        joined = self._traces.extract(carried, ours)
        if not self._links:
            return Arrival(joined)
        theirs = get_current_span(joined).get_span_context()
        return Arrival(ours, [Link(theirs)] if theirs.is_valid else [])


def _valid(pattern: re.Pattern[str], value: str | None) -> str | None:
    return value if value is not None and pattern.fullmatch(value) else None
