"""The token that `make up` makes for the services it starts."""

from pathlib import Path

import pytest

from deploy.local.parts import internal_token, make_internal_token, parts


def given(state: Path, **settings: str) -> set[str | None]:
    """The tokens that the four services are started with."""
    started = parts({"O11Y_STATE_DIR": str(state), **settings})
    return {each.environment.get("INTERNAL_TOKEN") for each in started if each.environment}


def test_all_services_get_one_token_that_stays(tmp_path: Path) -> None:
    make_internal_token(tmp_path / "new")
    token = internal_token(tmp_path / "new")
    make_internal_token(tmp_path / "new")
    assert len(token) >= 16
    assert given(tmp_path / "new") == {token}
    [file] = (tmp_path / "new").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_another_folder_has_another_token(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_internal_token(tmp_path / name)
    assert internal_token(tmp_path / "a") != internal_token(tmp_path / "b")


def test_a_file_without_a_token_gets_one(tmp_path: Path) -> None:
    (tmp_path / "internal-token").touch()  # as one who was killed may have left it
    make_internal_token(tmp_path)
    assert len(internal_token(tmp_path)) >= 16


@pytest.mark.parametrize("own", ["a-token-of-ones-own", ""])
def test_a_token_of_ones_own_comes_first(tmp_path: Path, own: str) -> None:
    make_internal_token(tmp_path)
    assert given(tmp_path, INTERNAL_TOKEN=own) == {own}
