"""Keys as people write and read them: in requests, answers and files."""

import json
from datetime import datetime
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
)

from accounting.caller import MAX_MODELS_IN_HEADER, MAX_MODELS_LENGTH, length_in_header
from gateway.allowance import Budgets, Limits
from gateway.keys.key import Key, parse
from gateway.tenants import Tenant as TenantAllowance
from o11y.contracts import ModelName

Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\x20-\x7e]+$")]
Tenant = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Route = Annotated[str, StringConstraints(pattern=r"^/[\x21-\x7e]{0,199}$")]


def _fits(models: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if models is not None and len(json.dumps(models)) > MAX_MODELS_LENGTH:
        raise ValueError(f"the names have more than {MAX_MODELS_LENGTH} characters together")
    if models is not None and length_in_header(models) > MAX_MODELS_IN_HEADER:
        raise ValueError(f"the names have more than {MAX_MODELS_IN_HEADER} characters in a header")
    return models


def _is_a_key(value: SecretStr) -> SecretStr:
    if not parse(value.get_secret_value()):
        raise ValueError("not of the form o11y-sk-{12 hexadecimal digits}-{32 characters}")
    return value


Models = Annotated[tuple[ModelName, ...] | None, AfterValidator(_fits)]
Routes = Annotated[tuple[Route, ...] | None, Field(max_length=50)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewKey(_Form):
    """A key to be made. A route that ends with `*` stands for all that begin so."""

    name: Name
    tenant: Tenant
    expires_at: AwareDatetime | None = None
    models: Models = None
    routes: Routes = None
    limits: Limits | None = None
    budgets: Budgets | None = None


class ChangedKey(_Form):
    """Fields of a key to be changed; those left out stay."""

    name: Name = ""
    expires_at: AwareDatetime | None = None
    models: Models = None
    routes: Routes = None
    limits: Limits | None = None
    budgets: Budgets | None = None
    disabled: bool = False


class GivenKey(NewKey):
    """A key of a file, whose text is known."""

    key: Annotated[SecretStr, AfterValidator(_is_a_key)]
    disabled: bool = False


class Rotation(_Form):
    """The change of a key's secret; the former one counts for so long."""

    grace_seconds: float = Field(86_400, ge=0, le=90 * 86_400)


class KeyAnswer(BaseModel):
    """A key as it is shown: without anything that could be used as one."""

    id: str
    name: str
    tenant: str
    created_at: datetime
    expires_at: datetime | None
    disabled: bool
    models: tuple[str, ...] | None
    routes: tuple[str, ...] | None
    limits: Limits | None
    budgets: Budgets | None
    former_until: datetime | None
    """The end of the time for which the secret before the rotation counts."""

    @classmethod
    def of(cls, key: Key) -> "KeyAnswer":
        return cls.model_validate(key, from_attributes=True)


class NewKeyAnswer(KeyAnswer):
    """A key with its text, which is shown this once."""

    key: str


class KeysAnswer(BaseModel):
    """All keys, the oldest first."""

    keys: list[KeyAnswer]


class TenantForm(_Form):
    """The allowance of a tenant, over all of its keys."""

    limits: Limits | None = None
    budgets: Budgets | None = None


class TenantAnswer(TenantForm):
    """A tenant's allowance, with its name."""

    name: str

    @classmethod
    def of(cls, tenant: TenantAllowance) -> "TenantAnswer":
        return cls(name=tenant.name, limits=tenant.limits, budgets=tenant.budgets)


class TenantsAnswer(BaseModel):
    """The tenants with an allowance of their own."""

    tenants: list[TenantAnswer]
