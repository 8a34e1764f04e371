"""The journal: records outlive their process, and go when the ledger has them."""

from pathlib import Path

import pytest

from accounting import journal
from accounting.journal import Folder, Journal, Reader, Taken, abandoned
from accounting.records import Begun, Void
from tests.support.accounting import row


def begun(name: str) -> Begun:
    return Begun(name, 0.0, "chat", "p", "m", 1, None)


def test_rows_are_read_in_their_order_and_those_that_run_are_known(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "r")
    writer, reader = Journal(folder), Reader(folder)
    for record in (begun("a"), begun("b"), row("b"), begun("c"), Void("c"), row("d")):
        writer.write(record)
    assert [each.id for each in reader.read(1)] == ["b"]
    assert [each.id for each in reader.read(10)] == ["d"]
    assert reader.read(10) == []
    assert [each.id for each in reader.running] == ["a"]
    writer.write(row("a"))
    assert [each.id for each in reader.read(10)] == ["a"]
    assert reader.running == []


def test_files_go_when_all_in_them_is_in_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_FILE", 300)
    folder = Folder(tmp_path / "r")
    writer, reader = Journal(folder), Reader(folder)
    writer.write(begun("long"))
    for number in range(20):
        writer.write(row(str(number)))
    assert len(folder.numbers()) > 5
    assert len(reader.read(100)) == 20
    reader.forget()
    assert folder.numbers()[0] == 1  # the call that runs began there
    writer.write(row("long"))
    assert [each.id for each in reader.read(100)] == ["long"]
    reader.forget()
    assert folder.numbers() == [max(folder.numbers())]


def test_a_folder_is_one_process_s_until_that_has_ended(tmp_path: Path) -> None:
    name = 32 * "a"
    folder = Folder(tmp_path / name)
    Journal(folder).write(row("a"))
    with pytest.raises(Taken):
        Folder(tmp_path / name)
    assert list(abandoned(tmp_path, "mine")) == []
    folder.close()
    assert list(abandoned(tmp_path, name)) == []
    [left] = abandoned(tmp_path, "mine")
    assert [each.id for each in Reader(left).read(10)] == ["a"]
    left.remove()
    assert list(tmp_path.iterdir()) == []
    assert list(abandoned(tmp_path / "nowhere", "mine")) == []


def test_another_service_s_folder_is_left_alone(tmp_path: Path) -> None:
    Folder(tmp_path / "inference-svc" / (32 * "a")).close()
    assert list(abandoned(tmp_path, "mine")) == []
    assert len(list(abandoned(tmp_path / "inference-svc", "mine"))) == 1


@pytest.mark.parametrize("torn", [b'["row","x"', b"no record\n", b"\xff\xfe\n", b"[]\n"])
def test_what_cannot_be_read_is_passed_over(tmp_path: Path, torn: bytes) -> None:
    folder = Folder(tmp_path / "r")
    Journal(folder).write(row("a"))
    with folder.file(1).open("ab") as file:
        file.write(torn)
    assert [each.id for each in Reader(folder).read(10)] == ["a"]


def test_a_line_that_is_being_written_is_read_when_it_is_complete(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "r")
    Journal(folder).write(row("a"))
    whole = folder.file(1).read_bytes()
    reader = Reader(folder)
    folder.file(1).write_bytes(whole[:-5])
    assert reader.read(10) == []
    folder.file(1).write_bytes(whole)
    assert [each.id for each in reader.read(10)] == ["a"]


def test_a_full_disk_is_an_error_and_leaves_no_half_of_a_record(tmp_path: Path) -> None:
    writer = Journal(Folder(tmp_path / "r"))
    writer.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        writer.write(row("a"))
