"""The caller with an API key, as the services behind the gateway know it: by W3C baggage."""

import json
from collections.abc import Sequence
from urllib.parse import quote_plus

from opentelemetry import baggage
from opentelemetry.context import Context

from o11y.telemetry import identity, schema

_MODELS = "o11y.key.models"
"""Baggage with the models that the caller's key may name, as JSON; it is on no span."""

_CHARGED = "o11y.charged"
"""Baggage of a call that is charged already, where it comes from."""

MAX_MODELS_LENGTH = 2000
"""Longest such list in characters."""

MAX_MODELS_IN_HEADER = 4000
"""Longest such list as it stands in the header: the propagator would drop what is longer."""


def with_key(parent: Context, tenant_id: str, key_id: str, models: Sequence[str] | None) -> Context:
    """The context of a caller with an API key: the key's tenant, id and models."""
    parent = baggage.set_baggage(schema.KEY_ID, key_id, parent)
    if models is not None:
        parent = baggage.set_baggage(_MODELS, json.dumps(list(models)), parent)
    return identity.with_identity(parent, tenant_id=tenant_id)


def allowed_models() -> frozenset[str] | None:
    """The models that the caller's key may name; None for any."""
    given = baggage.get_baggage(_MODELS)
    return frozenset(json.loads(given)) if isinstance(given, str) else None


def with_charged(parent: Context) -> Context:
    """The context of a call that is charged here, and nowhere else."""
    return baggage.set_baggage(_CHARGED, "true", parent)


def is_charged() -> bool:
    """True where the current call is charged by the service that it comes from."""
    return baggage.get_baggage(_CHARGED) == "true"


def length_in_header(models: Sequence[str]) -> int:
    """Characters that a list of models has in the header."""
    return len(quote_plus(json.dumps(list(models))))
