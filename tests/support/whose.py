"""Work done for somebody, as within a request of theirs."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context

from o11y.telemetry.identity import with_identity


@contextmanager
def identified(
    user: str | None, session: str | None = None, tenant: str | None = None
) -> Iterator[None]:
    token = context.attach(with_identity(context.get_current(), user, session, tenant))
    try:
        yield
    finally:
        context.detach(token)
