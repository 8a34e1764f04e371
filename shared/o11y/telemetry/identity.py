"""The identity of a request: user, session and tenant as W3C baggage, and on every span and line.

The gateway alone decides who it is and reads no baggage from outside; behind it, the baggage of the
incoming request is trusted. Keys of the baggage are those of the spans: `user.id` and `session.id`
of the semantic conventions, and `tenant.id`.

OTEL_PROPAGATORS may leave baggage out, but for callers with a key: what a key may do, and whose
documents it sees, is no matter of telemetry.
"""

import json
from collections.abc import Mapping, MutableMapping, Sequence
from typing import NamedTuple
from urllib.parse import quote_plus

from opentelemetry import baggage, context, propagate, trace
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
_MODELS = "o11y.key.models"
"""Baggage with the models that the caller's key may name, as JSON; it is on no span."""

MAX_MODELS_LENGTH = 2000
"""Longest such list in characters."""

MAX_MODELS_IN_HEADER = 4000
"""Longest such list as it stands in the header: the propagator would drop what is longer."""

_KEY = context.create_key("o11y-who")
_BAGGAGE = W3CBaggagePropagator()
BAGGAGE = "baggage"
"""The header."""


class _Identity(NamedTuple):
    """The identity in a context, as every span and log line needs it."""

    attributes: dict[str, str]
    tenant: str | None


_NOBODY = _Identity({}, None)


def _of(parent: Context | None) -> _Identity:
    found = (context.get_current() if parent is None else parent).get(_KEY, _NOBODY)
    assert isinstance(found, _Identity)
    return found


def attributes(parent: Context | None = None) -> dict[str, str]:
    """The attributes that say who, under every name they are known by. Not to be changed."""
    return _of(parent).attributes


def with_attributes(parent: Context) -> Context:
    """The context, with the attributes of its baggage ready for every span and log line in it."""
    given = baggage.get_all(parent)
    found: dict[str, str] = {}
    for key, names in _NAMES.items():
        value = given.get(key)
        if isinstance(value, str):
            found.update(dict.fromkeys(names, value))
    if not found:
        return parent
    return context.set_value(_KEY, _Identity(found, found.get(schema.TENANT_ID)), parent)


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


def length_in_header(models: Sequence[str]) -> int:
    """Characters that a list of models has in the header."""
    return len(quote_plus(json.dumps(list(models))))


def with_key(parent: Context, tenant_id: str, key_id: str, models: Sequence[str] | None) -> Context:
    """The context of a caller with an API key: the key's tenant, id and models."""
    parent = baggage.set_baggage(schema.KEY_ID, key_id, parent)
    if models is not None:
        parent = baggage.set_baggage(_MODELS, json.dumps(list(models)), parent)
    return with_identity(parent, tenant_id=tenant_id)


def allowed_models() -> frozenset[str] | None:
    """The models that the caller's key may name; None for any."""
    given = baggage.get_baggage(_MODELS)
    return frozenset(json.loads(given)) if isinstance(given, str) else None


def identify(user_id: str | None, session_id: str | None = None) -> None:
    """Do the rest of this request as this user and session; the span already open is told as well.

    It ends with the request: the middleware of the server span puts the context back.
    """
    if user_id or session_id:
        identified = with_identity(context.get_current(), user_id, session_id)
        context.attach(identified)
        trace.get_current_span().set_attributes(attributes(identified))


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
    return _of(None).tenant or NO_TENANT


class Tenants:
    """The metric label of a tenant whose call was accepted: one of a bounded number."""

    def __init__(self, limit: int = MAX_TENANTS) -> None:
        self._bounded = Bounded(limit)

    def label(self, tenant: str) -> str:
        return NO_TENANT if tenant == NO_TENANT else self._bounded(tenant)
