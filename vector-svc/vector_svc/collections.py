"""The collections of the database: one that all share, and one for each tenant with keys."""

import asyncio
from collections import OrderedDict

from chromadb.api import AsyncClientAPI, ClientAPI

from o11y.telemetry import identity, schema
from vector_svc.collection import Connect, VectorCollection

MOST_OPEN = 1000
"""Collections of tenants that are kept ready: another one is found again by its name."""


class Collections:
    """Finds the collection that the current request works in.

    A caller with an API key works in that of its tenant, and in no other; one without a key in the
    shared one, whatever tenant it names. All of them use one client of Chroma's.
    """

    def __init__(self, connect: Connect, name: str) -> None:
        self._connect = connect
        self._connecting = asyncio.Lock()
        self._client: ClientAPI | AsyncClientAPI | None = None
        self.shared = VectorCollection(self._connected, name)
        self._of_tenants: OrderedDict[str, VectorCollection] = OrderedDict()

    def current(self) -> VectorCollection:
        """The collection of the current request."""
        who = identity.attributes()
        if schema.KEY_ID not in who:
            return self.shared
        tenant = who[schema.TENANT_ID]
        found = self._of_tenants.get(tenant)
        if found is None:
            if len(self._of_tenants) >= MOST_OPEN:
                self._of_tenants.popitem(last=False)
            name = tenant_collection(self.shared.name, tenant)
            found = self._of_tenants[tenant] = VectorCollection(self._connected, name)
        self._of_tenants.move_to_end(tenant)
        return found

    async def _connected(self) -> ClientAPI | AsyncClientAPI:
        async with self._connecting:
            if self._client is None:
                self._client = await self._connect()
            return self._client


def tenant_collection(shared: str, tenant: str) -> str:
    """The name of a tenant's collection, which no other tenant has.

    Chroma refuses two dots in a row, and wants names to end with a letter or digit.
    """
    escaped = tenant.replace("-", "--").replace(".", "-d")
    return f"{shared}.tenant.{escaped}.docs"
