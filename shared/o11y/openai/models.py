"""One model out of OpenAI's list of models."""

import msgspec

from o11y.web.problems import Problem


class _Named(msgspec.Struct):
    id: str


class _Listed(msgspec.Struct):
    data: list[msgspec.Raw]


_listed = msgspec.json.Decoder(_Listed)
_named = msgspec.json.Decoder(_Named)


def one(content: bytes, name: str) -> bytes:
    """The row of a list for the model with this name, as it came. Raises Problem 404, and 502."""
    try:
        for row in _listed.decode(content).data:
            if _named.decode(row).id == name:
                return bytes(row)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(502, f"the list of models can't be read: {error}") from error
    raise Problem(404, f"the model {name!r} does not exist", code="model_not_found", field="model")
