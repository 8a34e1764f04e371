"""The keys in the database. Its methods block; callers on the event loop use a thread."""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, RowMapping, insert, select, update

from accounting import tables
from accounting.database import Migrated, utc
from gateway.allowance import Budgets, Limits
from gateway.keys.key import Key, hash_of, new_id, new_secret, written

GRACE = timedelta(hours=24)
"""The time for which a secret counts after it was replaced, by default."""


class NoSuchKey(Exception):
    """No key has this id."""


class KeyStore:
    """Creates, reads and changes keys; the secret of one is only ever returned, never stored."""

    def __init__(self, engine: Engine) -> None:
        self._database = Migrated(engine)

    def all(self) -> list[Key]:
        """All keys, the oldest first."""
        with self._database.ready().connect() as connection:
            rows = connection.execute(select(tables.keys).order_by(tables.keys.c.created_at))
            return [_key(row) for row in rows.mappings()]

    def get(self, key_id: str) -> Key:
        """One key. Raises NoSuchKey."""
        with self._database.ready().connect() as connection:
            found = select(tables.keys).where(tables.keys.c.id == key_id)
            row = connection.execute(found).mappings().first()
        if row is None:
            raise NoSuchKey(key_id)
        return _key(row)

    def create(
        self,
        name: str,
        tenant: str,
        *,
        expires_at: datetime | None = None,
        models: Sequence[str] | None = None,
        routes: Sequence[str] | None = None,
        limits: Limits | None = None,
        budgets: Budgets | None = None,
    ) -> tuple[Key, str]:
        """A new key, and its text, which nobody can be shown again."""
        secret = new_secret()
        key = Key(
            id=new_id(),
            name=name,
            tenant=tenant,
            hash=hash_of(secret),
            created_at=datetime.now(UTC),
            expires_at=expires_at,
            models=None if models is None else tuple(models),
            routes=None if routes is None else tuple(routes),
            limits=limits,
            budgets=budgets,
        )
        self._insert(key)
        return key, written(key.id, secret)

    def change(self, key_id: str, **changes: Any) -> Key:
        """Change fields of a key, and return it. Raises NoSuchKey."""
        changed = replace(self.get(key_id), **changes)
        self._write(changed)
        return changed

    def rotate(self, key_id: str, grace: timedelta = GRACE) -> tuple[Key, str]:
        """A new secret for a key, whose former one counts for a while. Raises NoSuchKey."""
        key, secret = self.get(key_id), new_secret()
        rotated = replace(
            key,
            hash=hash_of(secret),
            former_hash=key.hash,
            former_until=datetime.now(UTC) + grace,
        )
        self._write(rotated)
        return rotated, written(key.id, secret)

    def put(self, key: Key) -> None:
        """Make a key what is given, whether there is one with its id or not."""
        try:
            created_at = self.get(key.id).created_at
        except NoSuchKey:
            self._insert(key)
        else:
            self._write(replace(key, created_at=created_at))

    def _insert(self, key: Key) -> None:
        with self._database.ready().begin() as connection:
            connection.execute(insert(tables.keys).values(**_row(key)))

    def _write(self, key: Key) -> None:
        with self._database.ready().begin() as connection:
            where = tables.keys.c.id == key.id
            connection.execute(update(tables.keys).where(where).values(**_row(key)))

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.engine.dispose()


def _row(key: Key) -> dict[str, Any]:
    row: dict[str, Any] = {field.name: getattr(key, field.name) for field in fields(key)}
    for name in ("models", "routes"):
        row[name] = None if row[name] is None else list(row[name])
    for name in ("limits", "budgets"):
        row[name] = row[name] and row[name].stored()
    return row


def _key(row: RowMapping) -> Key:
    given = dict(row)
    for name in ("created_at", "expires_at", "former_until"):
        given[name] = given[name] and utc(given[name])
    for name in ("models", "routes"):
        given[name] = None if given[name] is None else tuple(given[name])
    given["limits"] = given["limits"] and Limits(**given["limits"])
    given["budgets"] = given["budgets"] and Budgets(**given["budgets"])
    return Key(**given)
