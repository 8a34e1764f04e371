"""`python -m gateway.keys`: create, list, show, change, disable and rotate keys."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from accounting.database import connect, sqlite_file
from gateway.keys.forms import ChangedKey, NewKey
from gateway.keys.key import Key
from gateway.keys.store import GRACE, KeyStore, NoSuchKey
from gateway.settings import Settings
from o11y.settings import load


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="python -m gateway.keys",
        description="API keys of the gateway's callers. DATABASE_URL says where they are.",
    )
    commands = root.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="make a key and print it, this once")
    create.add_argument("--name", required=True, help="whose it is, or what for")
    create.add_argument("--tenant", required=True)
    commands.add_parser("list", help="all keys, a line each")
    for name, words in (
        ("show", "all that is known of a key"),
        ("update", "change a key"),
        ("disable", "let a key open nothing"),
        ("enable", "let a disabled key open again"),
        ("rotate", "print a new text for a key; the former one counts for a while"),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("id")
        if name == "rotate":
            hours = GRACE / timedelta(hours=1)
            command.add_argument("--grace-hours", type=float, default=hours, help=f"{hours:g}")
        if name == "update":
            command.add_argument("--name")
    for command in (create, commands.choices["update"]):
        command.add_argument("--expires-days", type=float, help="from now")
        command.add_argument("--model", action="append", help="may be repeated; without it, any")
        command.add_argument("--route", action="append", help="/chat, /v1/*; without it, any")
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0, or 1 with a line on stderr that says what is wrong."""
    given = parser().parse_args(arguments)
    url = load(Settings).database_url.get_secret_value()
    if (file := sqlite_file(url)) is not None and given.command == "create":
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(KeyStore(connect(url))) as store:
            run(given, store)
    except NoSuchKey:
        print(f"no key has the id {given.id}", file=sys.stderr)
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False):
            print(f"{'.'.join(map(str, item['loc']))}: {item['msg']}", file=sys.stderr)
    except SQLAlchemyError as error:
        print(f"DATABASE_URL: the database can't be used: {type(error).__name__}", file=sys.stderr)
    else:
        return 0
    return 1


def run(given: argparse.Namespace, store: KeyStore) -> None:
    """Run a command on the keys. Raises NoSuchKey, ValidationError and SQLAlchemyError."""
    match given.command:
        case "create":
            new = NewKey(name=given.name, tenant=given.tenant, **_changes(given))
            key, text = store.create(**dict(new))
            print(text)
            print(f"key {key.id} of tenant {key.tenant}: shown this once", file=sys.stderr)
        case "list":
            for key in store.all():
                print(_line(key))
        case "show":
            _print(store.get(given.id))
        case "update":
            changes = _changes(given) | ({"name": given.name} if given.name else {})
            form = ChangedKey.model_validate(changes)
            _print(store.change(given.id, **{name: getattr(form, name) for name in changes}))
        case "disable" | "enable":
            _print(store.change(given.id, disabled=given.command == "disable"))
        case "rotate":
            key, text = store.rotate(given.id, timedelta(hours=given.grace_hours))
            print(text)
            print(f"the former text counts until {key.former_until}", file=sys.stderr)


def _changes(given: argparse.Namespace) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if given.expires_days is not None:
        changes["expires_at"] = datetime.now(UTC) + timedelta(days=given.expires_days)
    if given.model:
        changes["models"] = given.model
    if given.route:
        changes["routes"] = given.route
    return changes


def _state(key: Key) -> str:
    if key.disabled:
        return "disabled"
    expired = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
    return "expired" if expired else "open"


def _line(key: Key) -> str:
    return f"{key.id}  {_state(key):<9}{key.tenant:<20}{key.name}"


def _print(key: Key) -> None:
    print(_line(key))
    for title, value in (
        ("made", key.created_at),
        ("expires", key.expires_at or "never"),
        ("models", ", ".join(key.models) if key.models is not None else "any"),
        ("routes", ", ".join(key.routes) if key.routes is not None else "any"),
        ("former text counts until", key.former_until or "there is none"),
    ):
        print(f"  {title}: {value}")


if __name__ == "__main__":
    sys.exit(main())
