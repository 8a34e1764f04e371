"""An API key: what it looks like, what is known of it, and what it allows."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime

from gateway.allowance import Budgets, Limits

PREFIX = "o11y-sk-"
_FORM = re.compile(PREFIX + r"([0-9a-f]{12})-([A-Za-z0-9_-]{32})")


@dataclass(frozen=True)
class Key:
    """A key as it is stored. Its `hash` is SHA-256 of the secret part, in hex: a slow hash is for
    passwords, which can be guessed; a secret of 192 random bits can't.
    """

    id: str
    name: str
    tenant: str
    hash: str
    created_at: datetime
    expires_at: datetime | None = None
    disabled: bool = False
    models: tuple[str, ...] | None = None
    """Models it may name; None for any."""
    routes: tuple[str, ...] | None = None
    """Paths it may call, or their beginnings where they end with `*`; None for any."""
    limits: Limits | None = None
    budgets: Budgets | None = None
    former_hash: str | None = None
    former_until: datetime | None = None
    """The end of the time for which the secret before the rotation counts."""

    def opens(self, secret: str, now: datetime) -> bool:
        """True if this is its secret; takes the same time whatever the secret is."""
        given = hash_of(secret)
        current = hmac.compare_digest(given, self.hash)
        former = hmac.compare_digest(given, self.former_hash or NOBODY.hash)
        return current or (former and self.former_until is not None and now < self.former_until)

    def may_call(self, path: str) -> bool:
        return self.routes is None or any(_covers(route, path) for route in self.routes)


def _covers(route: str, path: str) -> bool:
    return path.startswith(route[:-1]) if route.endswith("*") else path == route


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def new_id() -> str:
    """A key's public part."""
    return secrets.token_hex(6)


def new_secret() -> str:
    """A key's secret part, of 192 random bits."""
    return secrets.token_urlsafe(24)


def written(key_id: str, secret: str) -> str:
    """The key as its owner sends it."""
    return f"{PREFIX}{key_id}-{secret}"


def parse(text: str) -> tuple[str, str] | None:
    """The id and the secret of a key; None for what isn't one."""
    found = _FORM.fullmatch(text)
    return (found[1], found[2]) if found else None


NOBODY = Key("", "", "", hash_of(new_secret()), datetime.min)
"""A key that nobody has, for comparisons that would otherwise be left out."""
