"""What each part imports is what it declares, and parts import in one direction."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.support.processes import ROOT

PARTS = {
    "o11y": "shared",
    "accounting": "shared",
    "gateway": "gateway",
    "llm_proxy": "llm-proxy",
    "vector_svc": "vector-svc",
    "inference_svc": "inference-svc",
}
"""The folder of each part, by the package in it."""

OURS = {*PARTS, "deploy", "tests"}
ELSEWHERE = {"litellm"}
"""Installed in an environment of its own (requirements-litellm.txt)."""

NEVER_IMPORTED = {
    "accelerate": "transformers loads models with it",
    "fastapi-offline": "the files of Swagger UI",
    "httptools": "uvicorn's parser",
    "jinja2": "starlette's templates",
    "mypy": "a command",
    "opentelemetry-exporter-otlp-proto-grpc": "an entry point",
    "opentelemetry-exporter-otlp-proto-http": "an entry point",
    "psycopg": "SQLAlchemy's driver",
    "pytest-asyncio": "a plugin",
    "pytest-xdist": "a plugin",
    "ruff": "a command",
    "types-docker": "for mypy",
    "types-psutil": "for mypy",
    "types-pyyaml": "for mypy",
    "uvloop": "uvicorn's event loop",
}


def imported(folder: Path) -> Iterator[str]:
    """The modules that are imported; of `from a import b` it may be that `a.b` is no module."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def of_others(folder: Path) -> frozenset[str]:
    known = {*sys.stdlib_module_names, *OURS, *ELSEWHERE}
    return frozenset(each for each in imported(folder) if each.split(".")[0] not in known)


def names(lines: list[str]) -> set[str]:
    """The names in requirements, but for our own packages."""
    found = (re.match(r"[\w.-]+", line) for line in lines)
    return {name[0] for name in found if name and name[0] != "o11y"}


def required(package: str) -> list[str]:
    project = tomllib.loads((ROOT / PARTS[package] / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {})
    lines: list[str] = extras.get(package, project["dependencies"])
    return lines


def shared(package: str) -> set[str]:
    """What a part has besides by being an extra of `o11y`."""
    return names(required("o11y")) if package == "accounting" else set()


def listed(file: str) -> set[str]:
    return names((ROOT / file).read_text().splitlines())


@cache
def modules(package: str) -> frozenset[str]:
    """The modules of a distribution; a namespace that it shares with others is none of them."""
    files = [path for path in distribution(package).files or () if path.suffix in (".py", ".so")]
    paths = [path.parent if path.stem == "__init__" else path.with_suffix("") for path in files]
    return frozenset(".".join(path.parts).split(".cpython-")[0] for path in paths)


def used(found: frozenset[str], package: str) -> set[str]:
    """Those that the package has, or has a name of."""
    of_it = modules(package)
    return {module for module in found if module in of_it or module.rpartition(".")[0] in of_it}


def undeclared(folder: Path, declared: set[str]) -> frozenset[str]:
    found = of_others(folder)
    return found.difference(*(used(found, package) for package in declared))


def unused(folder: Path, declared: set[str]) -> set[str]:
    found = of_others(folder)
    return {each for each in declared - NEVER_IMPORTED.keys() if not used(found, each)}


everything = {name for package in PARTS for name in names(required(package))}
tools = listed("requirements-tools.txt")


@pytest.mark.parametrize("package", PARTS)
def test_a_part_declares_what_it_imports_and_no_more(package: str) -> None:
    folder, declared = ROOT / PARTS[package] / package, names(required(package))
    assert undeclared(folder, declared | shared(package)) == set()
    assert unused(folder, declared) == set()


def test_the_tools_are_what_the_commands_import_besides_the_services() -> None:
    assert undeclared(ROOT / "deploy", tools | everything) == set()
    assert unused(ROOT / "deploy", tools) == set()


def test_the_tests_need_what_is_listed_for_them_besides_services_and_tools() -> None:
    developed = listed("requirements-dev.txt")
    assert undeclared(ROOT / "tests", developed | tools | everything) == set()
    assert unused(ROOT / "tests", developed) == set()


@pytest.mark.parametrize("package", [*PARTS, "deploy"])
def test_a_part_imports_itself_and_what_all_share(package: str) -> None:
    folder = ROOT / PARTS[package] / package if package in PARTS else ROOT / package
    roots = {module.split(".")[0] for module in imported(folder)}
    # the demo and the load are callers of the gateway, whose answers they read
    others = {"deploy": {"gateway"}}
    others |= {each: {"accounting"} for each in ("gateway", "llm_proxy", "inference_svc")}
    assert roots & OURS <= {package, "o11y"} | others.get(package, set())
    if PARTS.get(package, "shared") != "shared":
        assert any(line.startswith("o11y") for line in required(package))


def test_every_reason_is_for_a_package_that_is_declared() -> None:
    assert NEVER_IMPORTED.keys() <= everything | tools | listed("requirements-dev.txt")


def test_no_test_module_imports_another() -> None:
    found = [
        f"{path.relative_to(ROOT)} {node.module}"
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and node.module
        and re.match(r"tests\.(.*\.)?test_", node.module)
    ]
    assert found == []
