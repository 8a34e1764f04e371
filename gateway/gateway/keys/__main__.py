"""`python -m gateway.keys`: create, list, show, change, disable and rotate keys."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from accounting.database import connect
from gateway.allowance import Budgets, Limits
from gateway.keys.forms import ChangedKey, NewKey, TenantForm
from gateway.keys.forms import Tenant as TenantName
from gateway.keys.key import Key
from gateway.keys.store import GRACE, KeyStore, NoSuchKey
from gateway.settings import Settings
from gateway.tenants import Tenant, TenantStore
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
    tenant = commands.add_parser("tenant", help="show what a tenant may use, or change it")
    tenant.add_argument("name")
    for command in (create, commands.choices["update"], tenant):
        command.add_argument(
            "--limit",
            action="append",
            type=_pair,
            metavar="NAME=NUMBER",
            help=f"{', '.join(Limits.model_fields)}; none instead of a number takes it away",
        )
        command.add_argument(
            "--budget",
            action="append",
            type=_pair,
            metavar="PERIOD=USD",
            help=f"{', '.join(Budgets.model_fields)}; none instead of an amount takes it away",
        )
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0, or 1 with a line on stderr that says what is wrong."""
    given = parser().parse_args(arguments)
    url = load(Settings).database_url.get_secret_value()
    engine = connect(url)
    try:
        if given.command == "tenant":
            run_tenant(given, TenantStore(engine))
        else:
            run(given, KeyStore(engine))
    except NoSuchKey:
        print(f"no key has the id {given.id}", file=sys.stderr)
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False):
            where = ".".join(map(str, item["loc"])) or "tenant"
            print(f"{where}: {item['msg']}", file=sys.stderr)
    except (SQLAlchemyError, OSError) as error:
        print(f"DATABASE_URL: the database can't be used: {type(error).__name__}", file=sys.stderr)
    else:
        return 0
    finally:
        engine.dispose()
    return 1


def run(given: argparse.Namespace, store: KeyStore) -> None:
    """Run a command on the keys. Raises NoSuchKey, ValidationError and SQLAlchemyError."""
    match given.command:
        case "create":
            new = NewKey(name=given.name, tenant=given.tenant, **_changes(given, None))
            key, text = store.create(**dict(new))
            print(text)
            print(f"key {key.id} of tenant {key.tenant}: shown this once", file=sys.stderr)
        case "list":
            for key in store.all():
                print(_line(key))
        case "show":
            _print(store.get(given.id))
        case "update":
            changes = _changes(given, store.get(given.id))
            changes |= {"name": given.name} if given.name else {}
            form = ChangedKey.model_validate(changes)
            _print(store.change(given.id, **{name: getattr(form, name) for name in changes}))
        case "disable" | "enable":
            _print(store.change(given.id, disabled=given.command == "disable"))
        case "rotate":
            key, text = store.rotate(given.id, timedelta(hours=given.grace_hours))
            print(text)
            print(f"the former text counts until {key.former_until}", file=sys.stderr)


def run_tenant(given: argparse.Namespace, store: TenantStore) -> None:
    """Show a tenant's allowance, or change it. Raises ValidationError and SQLAlchemyError."""
    TypeAdapter(TenantName).validate_python(given.name)
    tenant = store.get(given.name)
    changes = _allowance(given, tenant)
    if changes:
        form = TenantForm.model_validate(
            {"limits": tenant.limits, "budgets": tenant.budgets} | changes
        )
        tenant = Tenant(given.name, form.limits, form.budgets)
        store.put(tenant)
    print(tenant.name)
    _print_allowance(tenant)


def _pair(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, None if value == "none" else value


def _allowance(given: argparse.Namespace, current: Key | Tenant | None) -> dict[str, Any]:
    """The limits and budgets that are to be changed: the current ones with what is given."""
    changes: dict[str, Any] = {}
    for field, pairs in (("limits", given.limit), ("budgets", given.budget)):
        if pairs:
            former = current and getattr(current, field)
            changes[field] = (former.model_dump() if former else {}) | dict(pairs)
    return changes


def _changes(given: argparse.Namespace, key: Key | None) -> dict[str, Any]:
    changes = _allowance(given, key)
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
    _print_allowance(key)


def _print_allowance(owner: Key | Tenant) -> None:
    for title in ("limits", "budgets"):
        allowance: Limits | Budgets | None = getattr(owner, title)
        given = allowance.model_dump(exclude_none=True) if allowance else {}
        pairs = ", ".join(f"{name}={value}" for name, value in given.items())
        print(f"  {title}: {pairs or 'none'}")


if __name__ == "__main__":
    sys.exit(main())
