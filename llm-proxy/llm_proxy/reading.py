"""Objects of providers, read with no more demands on them than their callers' readers have.

msgspec reads what has the declared form, and is fast. What hasn't is read as JavaScript and Python
do, with half characters and numbers that JSON lacks; a field of another form is left out, alone.
"""

import json
from collections.abc import Callable
from types import UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin

import msgspec

Form = TypeVar("Form", bound=msgspec.Struct)


class NotReadable(Exception):
    """The provider's answer is not what its API says."""


class Reader(Generic[Form]):
    """Reads objects of a form, which `title` names in errors."""

    def __init__(self, form: type[Form], title: str) -> None:
        self._form = form
        self._title = title
        self._decode: Callable[[bytes], Form] = msgspec.json.Decoder(form).decode

    def __call__(self, content: bytes) -> Form:
        """Read an object. Raises NotReadable for what is no JSON object."""
        try:
            return self._decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._read_leniently(content)

    def _read_leniently(self, content: bytes) -> Form:
        try:
            found = json.loads(content.decode("utf-8", "replace"), parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise NotReadable(f"{self._title} is no JSON object: {error}") from error
        if isinstance(found, list) and len(found) == 1:
            found = found[0]
        if not isinstance(found, dict):
            raise NotReadable(f"{self._title} is no JSON object")
        return _fitting(self._form, found)


def _fitting(form: type[Form], found: dict[str, Any]) -> Form:
    fitted: dict[str, Any] = {}
    for field in msgspec.structs.fields(form):
        if (value := _fitted(field.type, found.get(field.encode_name))) is not None:
            fitted[field.name] = value
    return form(**fitted)


def _fitted(kind: Any, value: Any) -> Any:
    """The value, or what of it has the form of this type; None for one that hasn't."""
    if value is None or kind is Any:
        return value
    if get_origin(kind) in (Union, UnionType):
        fitting = (_fitted(each, value) for each in get_args(kind) if each is not type(None))
        return next((each for each in fitting if each is not None), None)
    if get_origin(kind) is list and isinstance(value, list):
        (item,) = get_args(kind)
        fitted = (_fitted(item, each) for each in value)
        return [each for each in fitted if each is not None]
    if kind is msgspec.Raw:
        return msgspec.Raw(json.dumps(value).encode())
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _fitting(kind, value) if isinstance(value, dict) else None
    if kind is str and isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return None
