"""Administration of keys: `/admin/keys`, with the admin key (see `admission`)."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError

from gateway.keys.directory import KeyDirectory
from gateway.keys.forms import (
    ChangedKey,
    KeyAnswer,
    KeysAnswer,
    NewKey,
    NewKeyAnswer,
    Rotation,
)
from gateway.keys.key import Key
from gateway.keys.store import NoSuchKey
from o11y.web.openapi import errors
from o11y.web.problems import Problem, unavailable


def router(directory: KeyDirectory) -> APIRouter:
    api = APIRouter(prefix="/admin", tags=["administration"], responses=errors(401, 404))
    store = directory.store

    @api.get("/keys")
    async def list_keys() -> KeysAnswer:
        """All keys."""
        with _using(directory):
            keys = await asyncio.to_thread(store.all)
        return KeysAnswer(keys=[KeyAnswer.of(key) for key in keys])

    @api.post("/keys", status_code=201)
    async def create_key(body: NewKey) -> NewKeyAnswer:
        """Make a key; its text is in this answer and nowhere else."""
        with _using(directory):
            made = await asyncio.to_thread(partial(store.create, **dict(body)))
        await directory.refresh()
        return _shown(*made)

    @api.get("/keys/{key_id}")
    async def read_key(key_id: str) -> KeyAnswer:
        """One key."""
        with _using(directory):
            return KeyAnswer.of(await asyncio.to_thread(store.get, key_id))

    @api.patch("/keys/{key_id}")
    async def change_key(key_id: str, body: ChangedKey) -> KeyAnswer:
        """Change a key, or disable it: fields that are left out stay as they are."""
        changes = {name: getattr(body, name) for name in body.model_fields_set}
        with _using(directory):
            key = await asyncio.to_thread(partial(store.change, key_id, **changes))
        await directory.refresh()
        return KeyAnswer.of(key)

    @api.post("/keys/{key_id}/rotate")
    async def rotate_key(key_id: str, body: Rotation | None = None) -> NewKeyAnswer:
        """Give a key a new text; the former one counts for a while."""
        grace = timedelta(seconds=(body or Rotation()).grace_seconds)
        with _using(directory):
            rotated = await asyncio.to_thread(store.rotate, key_id, grace)
        await directory.refresh()
        return _shown(*rotated)

    return api


@contextmanager
def _using(directory: KeyDirectory) -> Iterator[None]:
    """Use the database, which is made where it isn't there yet; failures become Problems."""
    try:
        directory.prepare()
        yield
    except NoSuchKey:
        raise Problem(404, "no key has this id", code="no_such_key") from None
    except (SQLAlchemyError, OSError) as error:
        raise unavailable("the database can't be used") from error


def _shown(key: Key, text: str) -> NewKeyAnswer:
    return NewKeyAnswer(**KeyAnswer.of(key).model_dump(), key=text)
