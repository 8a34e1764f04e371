"""Providers from the environment; what is wrong with them is one line, without their keys."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from llm_proxy.settings import LOCAL, ProviderSettings, Settings
from o11y.settings import load

SECRET = "sk-hunter2"
A = {"name": "a", "base_url": "http://a.test/v1", "api_key": SECRET}


def complaint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **variables: str
) -> str:
    """The one line with which these variables stop the start."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        load(Settings)
    [line] = capsys.readouterr().err.splitlines()
    return line


def without(field: str) -> dict[str, Any]:
    return {key: value for key, value in A.items() if key != field}


@pytest.mark.parametrize(
    ("providers", "where", "words"),
    [
        ([without("name")], "LLM_PROVIDERS.0.name", "required"),
        ([A, {**without("base_url"), "name": "b"}], "LLM_PROVIDERS.1", "base_url is missing"),
        ([{**A, "base_url": f"ftp://user:{SECRET}@x"}], "LLM_PROVIDERS.0.base_url", "http"),
        ([{**A, "api_key": [SECRET]}], "LLM_PROVIDERS.0.api_key", "string"),
        ([{**A, "api_key": f"{SECRET}\n"}], "LLM_PROVIDERS.0.api_key", "printable"),
        ([{**A, "api_key": ""}], "LLM_PROVIDERS.0.api_key", "printable"),
        ([{**A, "apikey": SECRET}], "LLM_PROVIDERS.0.apikey", "not permitted"),
        ([{**A, "headers": {"x-key": f"{SECRET}\r\n"}}], "LLM_PROVIDERS.0.headers.x-key", "match"),
        ([{**A, "headers": {f"{SECRET}: x": "y"}}], "LLM_PROVIDERS.0.headers", "match"),
        ([{**A, "api_key_header": ""}], "LLM_PROVIDERS.0.api_key_header", "match"),
        ([{**A, "query": {"key": [SECRET]}}], "LLM_PROVIDERS.0.query.key", "string"),
        ([{**A, "name": "a provider"}], "LLM_PROVIDERS.0.name", "match"),
        ([{**A, "retries": 11}], "LLM_PROVIDERS.0.retries", "less than or equal to 10"),
        ([{**A, "first_byte_seconds": 0}], "LLM_PROVIDERS.0.first_byte_seconds", "greater than 0"),
        ([{**A, "max_concurrency": 0}], "LLM_PROVIDERS.0.max_concurrency", "greater than"),
        ([{**A, "pricing": "nobody"}], "LLM_PROVIDERS.0.pricing", "no such provider"),
        ([A, A], "LLM_PROVIDERS", "same name"),
        ([], "LLM_PROVIDERS", "no provider"),
        ({"name": SECRET}, "LLM_PROVIDERS", "not a JSON list"),
        ([SECRET], "LLM_PROVIDERS", "$[0]"),
        ("x", "LLM_PROVIDERS", "not a JSON list"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_list_of_providers_is_one_line_that_names_the_field_and_no_key(
    providers: object,
    where: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = complaint(monkeypatch, capsys, LLM_PROVIDERS=json.dumps(providers))
    assert line.startswith(where)
    assert words in line
    assert SECRET not in line.removeprefix(f"{where}.{SECRET}")


@pytest.mark.parametrize("value", [f'[{{"api_key": "{SECRET}"', SECRET, f'["{SECRET}'])
def test_a_list_that_is_no_json_is_not_repeated(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = complaint(monkeypatch, capsys, LLM_PROVIDERS=value)
    assert line.startswith("LLM_PROVIDERS: not a JSON list of providers: ")
    assert SECRET not in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_API_KEY", f"{SECRET}\n"),
        ("OPENAI_API_KEY", f"{SECRET} \u00e9"),
        ("OPENAI_BASE_URL", "localhost:8000"),
        ("OPENAI_PRICING", "nobody"),
        ("STREAM_TIMEOUT_SECONDS", "0"),
    ],
)
def test_a_bad_variable_is_named(
    name: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = complaint(monkeypatch, capsys, **{name: value})
    assert line.startswith(f"{name}: ")
    assert SECRET not in line


def test_the_providers_are_those_of_the_list_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [{**A, "name": "z", "models": {"*": "m"}, "stream_usage": False}, {"name": LOCAL}]
    monkeypatch.setenv("LLM_PROVIDERS", json.dumps(listed))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody")
    first, second = Settings().providers()
    assert (first.name, first.models, first.stream_usage) == ("z", {"*": "m"}, False)
    assert (second.name, second.base_url) == (LOCAL, None)
    assert SECRET not in repr(first) + str(first)


@pytest.mark.parametrize(
    ("variables", "name", "url"),
    [
        ({}, LOCAL, None),
        ({"OPENAI_API_KEY": "sk"}, "openai", "https://api.openai.com/v1"),
        ({"OPENAI_BASE_URL": "http://x.test/v1"}, "openai", "http://x.test/v1"),
        (
            {"OPENAI_BASE_URL": "http://x.test/v1", "OPENAI_PRICING": "groq"},
            "groq",
            "http://x.test/v1",
        ),
        (
            {"OPENAI_BASE_URL": "http://x.test/v1", "OPENAI_PRICING": "none"},
            "openai",
            "http://x.test/v1",
        ),
        ({"LLM_PROVIDERS": ""}, LOCAL, None),
    ],
)
def test_without_a_list_the_openai_variables_make_the_only_provider(
    variables: dict[str, str], name: str, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    [only] = Settings().providers()
    assert (only.name, str(only.base_url) if only.base_url else None) == (name, url)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a" * 41, "é", "a\n"])
def test_a_name_fits_labels_and_headers(name: str) -> None:
    with pytest.raises(ValidationError):
        ProviderSettings.model_validate({**A, "name": name})
