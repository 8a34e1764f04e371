"""The identity of a request: user, session and tenant as W3C baggage, and on every span and line.

The gateway alone decides who it is and reads no baggage from outside; behind it, the baggage of the
incoming request is trusted. Keys of the baggage are those of the spans: `user.id` and `session.id`
of the semantic conventions, and `tenant.id`.

OTEL_PROPAGATORS may leave baggage out, but for callers with a key: what a key may do, and whose
documents it sees, is no matter of telemetry.
"""

from collections.abc import Mapping, MutableMapping

from opentelemetry import baggage, context, propagate
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor

from o11y.telemetry import schema
from o11y.telemetry.bounded import Bounded

MAX_LENGTH = 128
"""Longest user or session id, in characters: they travel in a header with every hop."""

MAX_TENANTS = 100
"""Tenants that are metric labels, in one process; those that come later share one label."""

NO_TENANT = "_none"
"""The label of calls without a tenant: no tenant can have this name, nor that of the overflow."""

_NAMES = {
    schema.USER_ID: (schema.USER_ID, schema.USER_ID_ORIGINAL),
    schema.SESSION_ID: (schema.SESSION_ID, schema.SESSION_ID_ORIGINAL),
    schema.TENANT_ID: (schema.TENANT_ID,),
    schema.KEY_ID: (schema.KEY_ID,),
}
_KEY = context.create_key("o11y-who")
_BAGGAGE = W3CBaggagePropagator()
BAGGAGE = "baggage"
"""The header."""

_NOBODY: dict[str, str] = {}


def attributes(parent: Context | None = None) -> dict[str, str]:
    """The attributes that say who, under every name they are known by. Not to be changed."""
    found = (context.get_current() if parent is None else parent).get(_KEY, _NOBODY)
    assert isinstance(found, dict)
    return found


def with_attributes(parent: Context) -> Context:
    """The context, with the attributes of its baggage ready for every span and log line in it."""
    given = baggage.get_all(parent)
    found: dict[str, str] = {}
    for key, names in _NAMES.items():
        value = given.get(key)
        if isinstance(value, str):
            found.update(dict.fromkeys(names, value))
    return context.set_value(_KEY, found, parent) if found else parent


def with_identity(
    parent: Context,
    user_id: str | None = None,
    session_id: str | None = None,
    tenant_id: str | None = None,
) -> Context:
    """The context for a user, session and tenant; one that is None stays as it was."""
    given = (
        (schema.USER_ID, user_id),
        (schema.SESSION_ID, session_id),
        (schema.TENANT_ID, tenant_id),
    )
    named = [(key, value) for key, value in given if value]
    if not named:
        return parent
    for key, value in named:
        parent = baggage.set_baggage(key, value, parent)
    return with_attributes(parent)


def extract(headers: Mapping[str, str]) -> Context:
    """The context of a request from a service of ours, by its headers."""
    found = propagate.extract(headers)
    if BAGGAGE in headers and not baggage.get_all(found):
        found = _BAGGAGE.extract(headers, found)
    return with_attributes(found)


def send_key(headers: MutableMapping[str, str]) -> None:
    """Add the baggage of a caller with a key to a request to a service of ours that has none."""
    if BAGGAGE not in headers and schema.KEY_ID in attributes():
        _BAGGAGE.inject(headers)


class IdentityOnSpans(SpanProcessor):
    """Writes user, session and tenant on every span that starts in their context."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        found = attributes(parent_context)
        if found:
            span.set_attributes(found)


def tenant() -> str:
    """The tenant that the current request is for, or NO_TENANT."""
    return attributes().get(schema.TENANT_ID, NO_TENANT)


class Tenants:
    """The metric label of a tenant whose call was accepted: one of a bounded number."""

    def __init__(self, limit: int = MAX_TENANTS) -> None:
        self._bounded = Bounded(limit)

    def label(self, tenant: str) -> str:
        return NO_TENANT if tenant == NO_TENANT else self._bounded(tenant)
