"""Settings of the services that spend: where the ledger is, and what holds while it is away."""

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field

from accounting.database import DatabaseUrl
from accounting.ledger import Estimate, Ledger
from o11y.settings import ServiceSettings
from o11y.web.service import StartError


class LedgerSettings(ServiceSettings):
    """Settings of a service that writes the ledger."""

    database_url: DatabaseUrl | None = None
    """The database of the ledger, without which there is none."""
    ledger_directory: Path = Path(".local/ledger")
    """The folder where rows of the ledger wait for the database."""
    ledger_retention_days: int | None = Field(None, ge=1)
    budget_store_failure: Literal["refuse", "pass"] = "refuse"
    """`pass`: calls may be made while budgets can't be checked, and count afterwards."""


def ledger(settings: LedgerSettings, estimate: Estimate, folder: str = "") -> Ledger | None:
    """The ledger, where there is a database for it; `folder` is that of its journals within the
    settings' one, where several services share that. Raises StartError.
    """
    if settings.database_url is None:
        return None
    days = settings.ledger_retention_days
    try:
        return Ledger(
            settings.database_url.get_secret_value(),
            settings.ledger_directory / folder,
            estimate,
            retention=None if days is None else timedelta(days=days),
            passes=settings.budget_store_failure == "pass",
        )
    except OSError as error:
        raise StartError(f"LEDGER_DIRECTORY: can't be written: {error.strerror}") from error
