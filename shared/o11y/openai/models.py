"""OpenAI's list of models: its rows as they came, by the names they have."""

from collections.abc import Iterator

import msgspec

from o11y.contracts import MAX_NAME
from o11y.web.problems import Problem


class _Named(msgspec.Struct):
    id: str


class _Listed(msgspec.Struct):
    data: list[msgspec.Raw]


_listed = msgspec.json.Decoder(_Listed)
_named = msgspec.json.Decoder(_Named)


def rows(content: bytes) -> Iterator[tuple[str, msgspec.Raw]]:
    """Each row with the name of its model; rows without one are left out. Raises DecodeError."""
    for row in _listed.decode(content).data:
        try:
            yield _named.decode(row).id, row
        except msgspec.ValidationError:
            continue


def one(content: bytes, name: str) -> bytes:
    """The row of a list for the model with this name, as it came. Raises Problem 404, and 502."""
    try:
        found = next((row for listed, row in rows(content) if listed == name), None)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(502, f"the list of models can't be read: {error}") from error
    if found is None:
        raise Problem(
            404,
            f"the model {name[:MAX_NAME]!r} does not exist",
            code="model_not_found",
            field="model",
        )
    return bytes(found)
