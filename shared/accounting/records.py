"""The records of attempts, as they stand in a journal and then in the ledger."""

from datetime import UTC, date, datetime
from typing import Any

import msgspec

from accounting.budget import Scope

OK = "ok"
EXPIRED = "reservation_expired"
"""The status of an estimate for calls of a replica that was never heard of again."""

RECOVERED = "reservation_recovered"
"""The status of such an estimate, taken back, when the replica was heard of after all."""

INTERRUPTED = "interrupted"
"""The status of a call that ended with its process: its row is an estimate."""

REMAINDER = "remainder"
"""The status of a row for the rest of a call that was in work still when it was settled."""

Owner = tuple[Scope, str]
"""A key by its id, or a tenant by its name."""


class Begun(msgspec.Struct, frozen=True, array_like=True, tag="begun"):
    """An attempt that is about to be sent."""

    id: str
    time: float
    """Seconds since 1970."""
    operation: str
    provider: str
    model: str
    input_tokens: int
    """An estimate."""
    max_output_tokens: int | None
    """The most that the caller asked for."""
    tenant: str | None = None
    key_id: str | None = None
    user_id: str | None = None
    trace_id: str | None = None


class Void(msgspec.Struct, frozen=True, array_like=True, tag="void"):
    """The end of an attempt that nobody bills."""

    id: str


class Row(msgspec.Struct, frozen=True, array_like=True, tag="row", kw_only=True):
    """The end of an attempt that is billed: a row of the ledger."""

    id: str
    time: float
    operation: str
    provider: str
    model: str
    response_model: str | None
    tenant: str | None
    key_id: str | None
    user_id: str | None
    trace_id: str | None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    cost: int | None = None
    """Picodollars; None where no price is known."""
    estimated: bool = False
    status: str = OK

    @property
    def day(self) -> date:
        return datetime.fromtimestamp(self.time, UTC).date()

    def columns(self, replica: str) -> dict[str, Any]:
        """The row as the table `ledger` has it."""
        found = msgspec.structs.asdict(self)
        return {**found, "time": datetime.fromtimestamp(self.time, UTC), "replica": replica}


Record = Begun | Void | Row

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Record).decode


def owners(key_id: str | None, tenant: str | None) -> list[Owner]:
    """The owners that pay: the key and the tenant."""
    found: list[Owner] = [("key", key_id)] if key_id else []
    return [*found, ("tenant", tenant)] if tenant else found
