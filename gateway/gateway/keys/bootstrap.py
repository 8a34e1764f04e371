"""Keys that are to be there from the start: a file, as Compose and Kubernetes mount a secret.

    [{"key": "o11y-sk-0123456789ab-…", "name": "web", "tenant": "acme", "models": ["gpt-4o-mini"]}]

A key that is in the database already is made what the file says; one that is missing in the file
is left alone.
"""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from gateway.keys.forms import GivenKey
from gateway.keys.key import Key, hash_of, parse
from gateway.keys.store import KeyStore

_given = TypeAdapter(list[GivenKey])


class BadKeysFile(Exception):
    """The file can't be used; the message is one line that names the entry, and shows no key."""


def read(path: Path) -> list[Key]:
    """The keys of a file. Raises BadKeysFile."""
    try:
        given = _given.validate_json(path.read_bytes())
    except OSError as error:
        raise BadKeysFile(str(error.strerror)) from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BadKeysFile(f"{where}: {first['msg']}" if where else first["msg"]) from None
    keys = []
    for each in given:
        parsed = parse(each.key.get_secret_value())
        assert parsed  # its form was checked
        key_id, secret = parsed
        fields = {name: value for name, value in each if name != "key"}
        keys.append(Key(id=key_id, hash=hash_of(secret), created_at=datetime.now(UTC), **fields))
    return keys


def load(path: Path, store: KeyStore) -> None:
    """Bring the database to what a file says. Raises BadKeysFile, and SQLAlchemyError."""
    for key in read(path):
        store.put(key)
