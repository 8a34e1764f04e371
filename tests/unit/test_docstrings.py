"""Docstrings can be understood where they stand: the first sentence has its subject."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.processes import ROOT

PARTS = ("shared", "gateway", "llm-proxy", "vector-svc", "inference-svc", "deploy")

RELATIVE = re.compile(
    r"(What|Those|The same|Of|When|How|Whether|Who|Which|Where|As|It|They|These|This|That)\b"
)
"""Openings that need a sentence before them."""


def docstrings(path: Path) -> list[tuple[int, str]]:
    """The strings of a module that stand alone, with their lines."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        body = getattr(node, "body", [])
        for statement in body if isinstance(body, list) else ():
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    found.append((statement.lineno, text.strip()))
    return found


@pytest.mark.parametrize("part", PARTS)
def test_a_docstring_begins_with_its_subject(part: str) -> None:
    pages = [path for path in (ROOT / part).rglob("*.py") if "build" not in path.parts]
    assert pages
    found = [
        f"{path.relative_to(ROOT)}:{line} {text[:60]}"
        for path in pages
        for line, text in docstrings(path)
        if RELATIVE.match(text)
    ]
    assert found == []
