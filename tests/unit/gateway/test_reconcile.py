"""`python -m gateway.usage reconcile`: an invoice beside the ledger."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from accounting import posting
from accounting.database import connect, upgrade
from accounting.money import picodollars
from gateway.usage.__main__ import main
from tests.support.accounting import row

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path}/o11y.db"
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.chdir(tmp_path)
    engine = connect(url)
    upgrade(engine)
    rows = [
        replace(row(name, picodollars(Decimal(cost))), time=NOON.timestamp(), response_model=model)
        for name, model, cost in (("a", "gpt-4o", "1.5"), ("b", "gpt-4o", "0.25"), ("c", "o4", "2"))
    ]
    posting.post(engine, "r", rows, {}, NOON)
    engine.dispose()
    return url


def reconciled(invoice: str, *options: str) -> int:
    Path("invoice.csv").write_text(invoice, encoding="utf-8")
    return main(["reconcile", "invoice.csv", *options])


AGREES = "\ufeffDate,Model,Cost\n2026-03-31,gpt-4o,1.75\n2026-03-31,o4,$2.001\n"


@pytest.mark.usefixtures("database")
def test_an_invoice_that_agrees_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert reconciled(AGREES) == 0
    printed = capsys.readouterr().out
    assert "2026-03-31  gpt-4o        1.750000        1.750000       +0.000000\n" in printed
    assert "0 of 2 lines differ by more than 0.01 USD" in printed


@pytest.mark.usefixtures("database")
def test_differences_are_shown_by_day_and_model(capsys: pytest.CaptureFixture[str]) -> None:
    second = "1774958400"  # 2026-03-31, 12:00
    invoice = (
        "start_time,end_time,line_item,amount_value\n"
        f'{second},,"gpt-4o, input",1.00\n{second},,"gpt-4o, output",0.80\n{second},,extra,7\n'
    )
    assert reconciled(invoice) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:1] + line.split()[-2:] for line in lines[1:4]] == [
        ["2026-03-31", "+7.000000", "<"],
        ["2026-03-31", "+0.050000", "<"],
        ["2026-03-31", "-2.000000", "<"],
    ]
    assert reconciled(AGREES, "--tolerance", "0.0001") == 1
    assert reconciled(AGREES, "--provider", "another") == 1


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("invoice", "words"),
    [
        ("", "has no column day or date"),
        ("day,model\n2026-03-31,m\n", "has no column cost_usd or cost"),
        ("day,model,cost\n", "has no lines"),
        ("day,model,cost\nyesterday,m,1\n", "line 2: not a day, a model and a cost"),
        ("day,model,cost\n2026-03-31,m,1\n2026-03-31,m,much\n", "line 3"),
        ("day,model,cost\n2026-03-31\n", "line 2"),
        ("day,model,cost\n99999999999999999,m,1\n", "line 2"),
    ],
)
def test_a_file_that_is_no_invoice_is_one_line(
    invoice: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reconciled(invoice) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_files_and_databases_that_are_not_there_are_one_line(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reconcile", "nowhere.csv"]) == 2
    assert "nowhere.csv: can't be read" in capsys.readouterr().err
    monkeypatch.setenv("DATABASE_URL", "sqlite:////proc/nowhere/o11y.db")
    assert reconciled(AGREES) == 2
    assert "DATABASE_URL" in capsys.readouterr().err
