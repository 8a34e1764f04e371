"""The pipeline stage that the current task works on, for the spans of the calls it makes."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from o11y.telemetry import schema

_current: ContextVar[str | None] = ContextVar("o11y_stage", default=None)


@contextmanager
def running(name: str) -> Iterator[None]:
    """Do what follows as this stage."""
    token = _current.set(name)
    try:
        yield
    finally:
        _current.reset(token)


def attributes() -> dict[str, str]:
    """The attributes of a call's span: the stage, within one."""
    name = _current.get()
    return {} if name is None else {schema.PIPELINE_STAGE: name}
