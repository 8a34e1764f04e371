from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from accounting.database import connect, upgrade
from accounting.ledger import Ledger
from accounting.money import DOLLAR
from accounting.posting import Typical
from accounting.records import INTERRUPTED, Begun, Row
from tests.support import postgres
from tests.support.accounting import row


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if postgres.programs() is None:
        pytest.skip("needs PostgreSQL")
    with postgres.postgres(tmp_path_factory.mktemp("postgres")) as (url, _):
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/o11y.db"
    url: str = request.getfixturevalue("server")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = connect(database)
    upgrade(engine)
    yield engine
    engine.dispose()


def a_cent(begun: Begun, typical: Typical) -> Row:
    """The estimate for a call that ended with its process."""
    estimate = row(begun.id, DOLLAR // 100, key=begun.key_id, tenant=begun.tenant)
    return Row(
        **{name: getattr(estimate, name) for name in estimate.__struct_fields__}
        | {"status": INTERRUPTED, "estimated": True}
    )


@pytest.fixture
def replica(database: str, tmp_path: Path) -> Callable[..., Ledger]:
    """Makes replicas that share a database and the folder of their journals."""

    def make(url: str = database, *, passes: bool = False) -> Ledger:
        return Ledger(url, tmp_path / "ledger", a_cent, passes=passes)

    return make
