"""Keys: their form, the database they are in, and the command that makes them."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from accounting import tables
from accounting.database import UnknownSchema, connect, upgrade
from gateway.keys import bootstrap
from gateway.keys.__main__ import main
from gateway.keys.bootstrap import BadKeysFile
from gateway.keys.key import NOBODY, Key, hash_of, new_id, new_secret, parse, written
from gateway.keys.store import KeyStore, NoSuchKey

NOW = datetime.now(UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KeyStore]:
    with closing(KeyStore(connect(f"sqlite:///{tmp_path}/o11y.db"))) as store:
        yield store


def test_a_key_is_long_random_and_recognised() -> None:
    keys = {written(new_id(), new_secret()) for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert key.startswith("o11y-sk-")
        parsed = parse(key)
        assert parsed
        assert written(*parsed) == key


@pytest.mark.parametrize(
    "text",
    [
        *("", "sk-abc", "o11y-sk-", "o11y-sk-0123456789ab"),
        *(f"o11y-sk-0123456789ab-{'x' * 31}", f"o11y-sk-0123456789ab-{'x' * 33}"),
        *(f"o11y-sk-0123456789AB-{'x' * 32}", f" o11y-sk-0123456789ab-{'x' * 32}"),
        f"o11y-sk-0123456789ab-{'x' * 31}é",
    ],
)
def test_what_is_no_key_is_none(text: str) -> None:
    assert parse(text) is None


def test_the_database_has_no_secret(store: KeyStore, tmp_path: Path) -> None:
    _, first = store.create("web", "acme")
    key_id = store.all()[0].id
    _, second = store.rotate(key_id)
    dump = "\n".join(sqlite3.connect(tmp_path / "o11y.db").iterdump())
    for text in (first, second):
        parsed = parse(text)
        assert parsed
        assert parsed[1] not in dump
    assert key_id in dump


def test_a_key_is_found_as_it_was_made(store: KeyStore) -> None:
    expires = NOW + timedelta(days=1)
    made, _ = store.create("web", "acme", expires_at=expires, models=["m"], routes=["/v1/*"])
    assert store.get(made.id) == made
    assert store.all() == [made]
    assert (made.expires_at, made.models, made.routes) == (expires, ("m",), ("/v1/*",))
    with pytest.raises(NoSuchKey):
        store.get("nobody")
    with pytest.raises(NoSuchKey):
        store.change("nobody", disabled=True)


def test_only_its_own_secret_opens_a_key(store: KeyStore) -> None:
    key, text = store.create("web", "acme")
    other, others_text = store.create("web", "acme")
    parsed, others = parse(text), parse(others_text)
    assert parsed
    assert others
    assert key.opens(parsed[1], NOW)
    assert not key.opens(others[1], NOW)
    assert not key.opens("", NOW)
    assert not NOBODY.opens("", NOW)
    assert other.opens(others[1], NOW)


def test_a_former_secret_counts_for_a_while(store: KeyStore) -> None:
    key, text = store.create("web", "acme")
    rotated, new_text = store.rotate(key.id, timedelta(hours=1))
    former, current = parse(text), parse(new_text)
    assert former
    assert current
    now = datetime.now(UTC)
    assert rotated.opens(current[1], now)
    assert rotated.opens(former[1], now)
    assert not rotated.opens(former[1], now + timedelta(hours=2))
    again, _ = store.rotate(key.id, timedelta(0))
    assert not again.opens(current[1], datetime.now(UTC))


@pytest.mark.parametrize(
    ("routes", "path", "allowed"),
    [
        (None, "/chat", True),
        (("/chat",), "/chat", True),
        (("/chat",), "/chat/", False),
        (("/v1/*",), "/v1/chat/completions", True),
        (("/v1/*",), "/chat", False),
        (("/*",), "/chat", True),
        ((), "/chat", False),
    ],
)
def test_a_key_may_call_its_routes(
    routes: tuple[str, ...] | None, path: str, allowed: bool
) -> None:
    assert Key("i", "n", "t", hash_of("s"), NOW, routes=routes).may_call(path) is allowed


def test_migrations_make_the_tables_that_the_code_knows(tmp_path: Path) -> None:
    migrated = connect(f"sqlite:///{tmp_path}/migrated.db")
    upgrade(migrated)
    upgrade(migrated)
    made = create_engine(f"sqlite:///{tmp_path}/made.db")
    tables.metadata.create_all(made)
    found, wanted = inspect(migrated), inspect(made)
    for table in tables.metadata.tables:
        columns = [
            [(each["name"], str(each["type"]), each["nullable"]) for each in one.get_columns(table)]
            for one in (found, wanted)
        ]
        assert columns[0] == columns[1]
        assert found.get_indexes(table) == wanted.get_indexes(table)


def test_a_database_of_a_newer_version_is_left_alone(store: KeyStore, tmp_path: Path) -> None:
    store.create("web", "acme")
    with sqlite3.connect(tmp_path / "o11y.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    url = f"sqlite:///{tmp_path}/o11y.db"
    with closing(KeyStore(connect(url))) as another, pytest.raises(UnknownSchema, match="9999"):
        another.all()


# The file


GIVEN = {"key": f"o11y-sk-0123456789ab-{'x' * 32}", "name": "web", "tenant": "acme"}


def test_keys_of_a_file_are_there_and_become_what_it_says(store: KeyStore, tmp_path: Path) -> None:
    other, _ = store.create("cli", "acme")
    file = tmp_path / "keys.json"
    for models in (["m"], ["n"]):
        file.write_text(json.dumps([{**GIVEN, "models": models}]))
        bootstrap.load(file, store)
    key = store.get("0123456789ab")
    assert (key.models, key.opens("x" * 32, NOW)) == (("n",), True)
    assert {each.id for each in store.all()} == {key.id, other.id}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "Invalid JSON"),
        ("{}", "valid array"),
        (json.dumps([{**GIVEN, "key": "o11y-sk-short"}]), r"0\.key: .*not of the form"),
        (json.dumps([GIVEN, {**GIVEN, "tenant": "a b"}]), r"1\.tenant: "),
        (json.dumps([{**GIVEN, "modles": []}]), r"0\.modles: "),
        (json.dumps([{**GIVEN, "models": ["m" * 250] * 9}]), r"0\.models: .*2000 characters"),
    ],
)
def test_a_bad_file_is_one_line_without_a_key(content: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(content)
    with pytest.raises(BadKeysFile, match=words) as bad:
        bootstrap.read(file)
    assert "short" not in str(bad.value)
    assert "\n" not in str(bad.value)


# The command


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/new/o11y.db")

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def test_a_keys_whole_life_on_the_command_line(run: Run) -> None:
    status, text, _ = run("create", "--name", "web", "--tenant", "acme", "--model", "gpt-4o")
    parsed = parse(text.strip())
    assert status == 0
    assert parsed
    key_id = parsed[0]
    assert run("list")[1].split() == [key_id, "open", "acme", "web"]
    assert "models: gpt-4o" in run("show", key_id)[1]
    assert (
        "routes: /chat, /v1/*" in run("update", key_id, "--route", "/chat", "--route", "/v1/*")[1]
    )
    assert "models: gpt-4o" in run("update", key_id, "--name", "front")[1]
    assert " disabled " in run("disable", key_id)[1]
    assert " open " in run("enable", key_id)[1]
    rotated = run("rotate", key_id, "--grace-hours", "1")[1].strip()
    assert rotated != text.strip()
    assert parse(rotated)
    assert " expired " in run("update", key_id, "--expires-days", "-1")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "nobody"], "no key has the id nobody"),
        (["create", "--name", "", "--tenant", "acme"], "name: "),
        (["create", "--name", "web", "--tenant", "a b"], "tenant: "),
        (["create", "--name", "web", "--tenant", "acme", "--route", "chat"], "routes.0: "),
        (["create", "--name", "web", "--tenant", "acme", "--model", "m" * 300], "models.0: "),
    ],
)
def test_a_mistake_is_a_line_that_names_it(run: Run, arguments: list[str], words: str) -> None:
    run("create", "--name", "other", "--tenant", "acme")
    status, output, errors = run(*arguments)
    assert (status, output) == (1, "")
    assert errors.startswith(words)


def test_a_database_that_cannot_be_used_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite:////proc/nowhere/o11y.db")
    status, _, errors = run("list")
    assert status == 1
    assert errors == "DATABASE_URL: the database can't be used: FileNotFoundError\n"
