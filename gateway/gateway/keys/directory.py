"""The keys as the gateway knows them at a request: in memory, read again every few seconds."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy.exc import SQLAlchemyError

from accounting.budget import Budget
from accounting.database import connect, sqlite_file
from gateway.allowance import Budgets, budgets_for
from gateway.keys.key import NOBODY, Key, parse
from gateway.keys.store import KeyStore
from gateway.limits.store import Limited
from gateway.tenants import Tenant, TenantStore
from o11y.web.problems import Problem, unavailable

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 2.0

Auth = Literal["auto", "off", "keys"]
"""`auto` asks for keys as soon as there is one, `keys` always, `off` never."""


class KeyDirectory:
    """Knows all keys and tenants of the database, and goes on with what it knows while that is
    away. A default database that isn't there yet is looked for, and not made.
    """

    def __init__(self, auth: Auth, database_url: str) -> None:
        self._auth = auth
        self._file = sqlite_file(database_url)
        self.engine = connect(database_url)
        self.store = KeyStore(self.engine)
        self.tenant_store = TenantStore(self.engine)
        self._keys: Mapping[str, Key] = {}
        self._tenants: Mapping[str, Tenant] = {}
        self._budgets: Mapping[str, tuple[Budget, ...]] = {}
        self._limits: Mapping[str, tuple[Limited, ...]] = {}
        self._known = self._is_missing()
        self._reported = False

    @property
    def required(self) -> bool:
        """True where a call needs a key."""
        return self._auth == "keys" or (self._auth == "auto" and bool(self._keys))

    @property
    def failure(self) -> str | None:
        """The reason why no call can be let in or refused; None when all is well."""
        return None if self._known or self._auth == "off" else "the keys can't be read"

    @property
    def keys(self) -> Iterable[Key]:
        """All keys, as they were read last."""
        return self._keys.values()

    @property
    def tenants(self) -> Mapping[str, Tenant]:
        """The tenants with an allowance of their own, as they were read last."""
        return self._tenants

    def budgets(self, key: Key) -> tuple[Budget, ...]:
        """The budgets that hold for a key: its own, and its tenant's."""
        return self._budgets.get(key.id, ())

    def limits(self, key: Key) -> tuple[Limited, ...]:
        """The limits that hold for a key: its own, and its tenant's."""
        return self._limits.get(key.id, ())

    async def watch(self) -> None:
        """Read the keys again and again."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """Read the keys once; what was known stays where that fails, and where a file is gone."""
        if self._auth == "off":
            return
        try:
            if not self._is_missing():
                await asyncio.to_thread(self._read)
        except (SQLAlchemyError, OSError) as error:
            if not self._reported:
                logger.warning("keys can't be read: %s", type(error).__name__)
                self._reported = True
            return
        if self._reported:
            logger.warning("keys can be read again")
        self._known, self._reported = True, False

    def _read(self) -> None:
        keys = {key.id: key for key in self.store.all()}
        tenants = self.tenant_store.all()
        self._budgets = {
            key.id: budgets_for("key", key.id, key.budgets)
            + budgets_for("tenant", key.tenant, _tenants_budgets(tenants.get(key.tenant)))
            for key in keys.values()
        }
        self._limits = {
            key.id: (
                *((Limited(("key", key.id), key.limits, key.tenant),) if key.limits else ()),
                *_limited(tenants.get(key.tenant)),
            )
            for key in keys.values()
        }
        self._keys, self._tenants = keys, tenants

    def _is_missing(self) -> bool:
        """True for a file that nobody has made, where it takes a first key to ask for keys; and for
        one that is gone: those who took it away would else have opened the gateway to everybody.
        """
        return self._auth == "auto" and self._file is not None and not self._file.exists()

    def authenticate(self, headers: Mapping[str, list[str]]) -> Key:
        """The key that a request brings. Raises Problem 401, or 503 before any key is known."""
        if self.failure:
            raise unavailable(self.failure)
        given = _given(headers)
        parsed = parse(given) if given else None
        key_id, secret = parsed or ("", "")
        now = datetime.now(UTC)
        key = self._keys.get(key_id, NOBODY)
        if not key.opens(secret, now):
            raise _refused("no_key" if given is None else "invalid_key")
        if key.disabled:
            raise _refused("key_disabled")
        if key.expires_at is not None and now >= key.expires_at:
            raise _refused("key_expired")
        return key


_DETAILS = {
    "no_key": "a key is needed: Authorization: Bearer o11y-sk-… or X-API-Key",
    "invalid_key": "the key is not valid",
    "key_disabled": "the key is disabled",
    "key_expired": "the key has expired",
    "two_keys": "the request brings more than one key",
}


def _limited(tenant: Tenant | None) -> tuple[Limited, ...]:
    if tenant is None or tenant.limits is None:
        return ()
    return (Limited(("tenant", tenant.name), tenant.limits, tenant.name),)


def _tenants_budgets(tenant: Tenant | None) -> Budgets | None:
    return tenant.budgets if tenant else None


def _refused(code: str) -> Problem:
    return Problem(401, _DETAILS[code], code=code, headers={"WWW-Authenticate": "Bearer"})


def _given(headers: Mapping[str, list[str]]) -> str | None:
    """The key in the headers. Raises Problem 401 for several that differ."""
    given = set(headers.get("x-api-key", ()))
    for value in headers.get("authorization", ()):
        scheme, _, text = value.partition(" ")
        given.add(text.strip() if scheme.lower() == "bearer" else "")
    if len(given) > 1:
        raise _refused("two_keys")
    return next(iter(given), None)
