"""Administration of keys and tenants: `/admin/…`, with the admin key (see `admission`)."""

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
    TenantAnswer,
    TenantForm,
    TenantsAnswer,
)
from gateway.keys.forms import Tenant as TenantName
from gateway.keys.key import Key
from gateway.keys.store import NoSuchKey
from gateway.tenants import Tenant
from o11y.web.openapi import errors
from o11y.web.problems import Problem, unavailable


def router(directory: KeyDirectory) -> APIRouter:
    api = APIRouter(prefix="/admin", tags=["administration"], responses=errors(401, 404))
    store = directory.store

    @api.get("/keys")
    async def list_keys() -> KeysAnswer:
        """All keys."""
        with _using():
            keys = await asyncio.to_thread(store.all)
        return KeysAnswer(keys=[KeyAnswer.of(key) for key in keys])

    @api.post("/keys", status_code=201)
    async def create_key(body: NewKey) -> NewKeyAnswer:
        """Make a key; its text is in this answer and nowhere else."""
        with _using():
            made = await asyncio.to_thread(partial(store.create, **dict(body)))
        await directory.refresh()
        return _shown(*made)

    @api.get("/keys/{key_id}")
    async def read_key(key_id: str) -> KeyAnswer:
        """One key."""
        with _using():
            return KeyAnswer.of(await asyncio.to_thread(store.get, key_id))

    @api.patch("/keys/{key_id}")
    async def change_key(key_id: str, body: ChangedKey) -> KeyAnswer:
        """Change a key, or disable it: fields that are left out stay as they are."""
        changes = {name: getattr(body, name) for name in body.model_fields_set}
        with _using():
            key = await asyncio.to_thread(partial(store.change, key_id, **changes))
        await directory.refresh()
        return KeyAnswer.of(key)

    @api.post("/keys/{key_id}/rotate")
    async def rotate_key(key_id: str, body: Rotation | None = None) -> NewKeyAnswer:
        """Give a key a new text; the former one counts for a while."""
        grace = timedelta(seconds=(body or Rotation()).grace_seconds)
        with _using():
            rotated = await asyncio.to_thread(store.rotate, key_id, grace)
        await directory.refresh()
        return _shown(*rotated)

    @api.get("/tenants")
    async def list_tenants() -> TenantsAnswer:
        """The tenants that have limits or budgets of their own."""
        with _using():
            tenants = await asyncio.to_thread(directory.tenant_store.all)
        return TenantsAnswer(tenants=[TenantAnswer.of(each) for each in tenants.values()])

    @api.get("/tenants/{name}")
    async def read_tenant(name: TenantName) -> TenantAnswer:
        """One tenant."""
        with _using():
            return TenantAnswer.of(await asyncio.to_thread(directory.tenant_store.get, name))

    @api.put("/tenants/{name}")
    async def put_tenant(name: TenantName, body: TenantForm) -> TenantAnswer:
        """Make a tenant's limits and budgets these: what is left out is not limited."""
        tenant = Tenant(name, body.limits, body.budgets)
        with _using():
            await asyncio.to_thread(directory.tenant_store.put, tenant)
        await directory.refresh()
        return TenantAnswer.of(tenant)

    return api


@contextmanager
def _using() -> Iterator[None]:
    """Use the database, which is made where it isn't there yet; failures become Problems."""
    try:
        yield
    except NoSuchKey:
        raise Problem(404, "no key has this id", code="no_such_key") from None
    except (SQLAlchemyError, OSError) as error:
        raise unavailable("the database can't be used") from error


def _shown(key: Key, text: str) -> NewKeyAnswer:
    return NewKeyAnswer(**KeyAnswer.of(key).model_dump(), key=text)
