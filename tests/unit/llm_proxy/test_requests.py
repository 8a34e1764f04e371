"""What is read of a request, and what alone is changed in it for a provider."""

import json
from typing import Any

import pytest

from llm_proxy.requests import Request, read
from o11y.openai.operations import CHAT, COMPLETION, EMBEDDINGS, Operation
from o11y.web.problems import Problem

MESSAGES = '"messages": [{"role": "user", "content": "hi"}]'


def chat(body: str) -> Request:
    return read(CHAT, body.encode())


def refused(operation: Operation, body: bytes) -> Problem:
    with pytest.raises(Problem) as raised:
        read(operation, body)
    return raised.value


@pytest.mark.parametrize(
    ("operation", "body", "path"),
    [
        (CHAT, b'{"messages": [{}]}', "/chat/completions"),
        (COMPLETION, b'{"prompt": "a"}', "/completions"),
        (COMPLETION, b'{"prompt": [1, 2]}', "/completions"),
        (EMBEDDINGS, b'{"input": "a"}', "/embeddings"),
        (EMBEDDINGS, b'{"input": [[1, 2]]}', "/embeddings"),
    ],
)
def test_each_operation_has_its_path(operation: Operation, body: bytes, path: str) -> None:
    assert read(operation, body).operation.path == path


@pytest.mark.parametrize(
    ("operation", "body", "field"),
    [
        (CHAT, b'{"model": "m"}', "messages"),
        (CHAT, b'{"messages": []}', "messages"),
        (CHAT, b'{"messages": null}', "messages"),
        (CHAT, b'{"prompt": "a"}', "messages"),
        (COMPLETION, b"{}", "prompt"),
        (EMBEDDINGS, b'{"input": ""}', "input"),
        (CHAT, b'{"messages": [{}], "model": 7}', "model"),
        (CHAT, b'{"messages": [{}], "model": ""}', "model"),
        (CHAT, b'{"messages": [{}], "model": ["m"]}', "model"),
        (CHAT, b'{"messages": [{}], "model": "%s"}' % (b"m" * 257), "model"),
        (EMBEDDINGS, b'{"input": "a", "model": "%s"}' % (b"m" * 1_000_000), "model"),
        (CHAT, b'{"messages": [{}], "stream": "yes"}', "stream"),
        (CHAT, b'{"messages": [{}], "stream": 1}', "stream"),
        (CHAT, b'{"messages": [{}], "stream_options": []}', "stream_options"),
        (CHAT, b'{"messages": [{}], "stream_options": true}', "stream_options"),
        (CHAT, b"", "body"),
        (CHAT, b"[]", "body"),
        (CHAT, b"null", "body"),
        (CHAT, b'{"messages": ', "body"),
        (CHAT, b'{"messages": [{}]} {}', "body"),
        (CHAT, b'{"messages": [{}], "temperature": NaN}', "body"),
        (CHAT, b'{"messages": [{}], "nobody_knows": Infinity}', "body"),
        (CHAT, b'{"messages": [{}], "temperature": 1e999}', "body"),
        (CHAT, b'{"messages": [{"content": "\\ud800"}]}', "body"),
        (CHAT, b'{"messages": [{}], "model": "\xff"}', "body"),
        (CHAT, b"\xef\xbb\xbf" + b'{"messages": [{}]}', "body"),
        (CHAT, b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "body"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_a_wrong_body_is_refused_with_the_field_named(
    operation: Operation, body: bytes, field: str
) -> None:
    problem = refused(operation, body)
    assert (problem.status, problem.code) == (422, "invalid_input")
    assert [error["field"] for error in problem.errors] == [field]
    assert problem.detail.startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("given", "read_as"),
    [
        ({"temperature": 0.5, "top_p": 1, "seed": -7, "n": 2}, (0.5, 1, None, 2, -7)),
        ({"max_tokens": 7}, (None, None, 7, None, None)),
        ({"max_tokens": 7, "max_completion_tokens": 9}, (None, None, 9, None, None)),
        ({"temperature": "hot", "n": True, "seed": 1.5}, (None,) * 5),
        ({"temperature": {}, "top_p": [], "max_tokens": "7", "n": None}, (None,) * 5),
        ({"seed": 10**40, "max_tokens": 2**63, "n": -(2**63)}, (None, None, None, -(2**63), None)),
    ],
)
def test_what_telemetry_tells_may_be_anything(
    given: dict[str, Any], read_as: tuple[object, ...]
) -> None:
    body = json.dumps({"messages": [{}], "model": "m", **given}).encode()
    request = read(CHAT, body)
    found = (request.temperature, request.top_p, request.max_tokens, request.choices, request.seed)
    assert found == read_as
    assert request.for_provider("m", True) == body


ODD = [
    f'{{ {MESSAGES} , "model":"m", "nobody_knows" : [1.50, 1e2, "\\u00e9"] }}',
    f'{{"model": "m", "model": "m", {MESSAGES}, "tools": [{{"type": "function"}}]}}',
    f'{{"model": "m", {MESSAGES}, "stream": false, "stream_options": null}}',
    f'{{"model": "m", {MESSAGES}, "stream": true, "stream_options": {{"include_usage": true}}}}',
    f'{{"model": "m", {MESSAGES}, "response_format": {{"json_schema": {{"$ref": "#"}}}}}}',
]


@pytest.mark.parametrize("body", ODD)
def test_a_body_in_which_nothing_must_change_goes_byte_for_byte(body: str) -> None:
    assert chat(body).for_provider("m", True) == body.encode()


def test_bytes_that_are_no_text_are_the_providers_to_judge() -> None:
    body = b'{"model": "m", "messages": [{"content": "\xff\xfe"}]}'
    assert read(CHAT, body).for_provider("m", True) == body
    assert b"\xff\xfe" in read(CHAT, body).for_provider("n", True)


def test_a_key_that_is_no_text_is_refused_where_the_body_must_change() -> None:
    body = b'{"messages": [{}], "\xff": 1}'
    with pytest.raises(Problem) as raised:
        read(CHAT, body).for_provider("m", True)
    assert raised.value.status == 422


@pytest.mark.parametrize("given", ['"model": "asked", ', '"model": null, ', ""])
def test_another_model_changes_the_model_alone(given: str) -> None:
    rest = f'{MESSAGES}, "top_p": 1.50, "big": 12345678901234567890123, "s": "\\u00e9 \\/ "'
    changed = chat(f"{{{given}{rest}}}").for_provider('the "new" one', True)
    for part in rest.replace(": ", ":").split(", "):  # the values as they were written
        name, _, value = part.partition(":")
        assert f"{name}:{value}" in changed.decode().replace(": ", ":")
    assert json.loads(changed) == {
        **json.loads(f"{{{rest}}}"),
        "model": 'the "new" one',
    }


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (None, {"include_usage": True}),
        ({}, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        (
            {"include_obfuscation": False, "new": [1]},
            {"include_obfuscation": False, "new": [1], "include_usage": True},
        ),
    ],
)
@pytest.mark.parametrize("model", ["m", "n"])
def test_a_stream_is_asked_for_its_usage_beside_the_callers_options(
    options: dict[str, Any] | None, sent: dict[str, Any], model: str
) -> None:
    given = {"messages": [{}], "model": "m", "stream": True, "stream_options": options}
    request = read(CHAT, json.dumps(given).encode())
    assert not request.include_usage
    changed = json.loads(request.for_provider(model, True))
    assert changed == {**given, "model": model, "stream_options": sent}


@pytest.mark.parametrize(
    ("operation", "fields"),
    [
        (CHAT, {"stream": True}),
        (CHAT, {"stream": False}),
        (EMBEDDINGS, {"stream": True}),
    ],
)
def test_usage_is_asked_of_streams_of_providers_that_tell_it(
    operation: Operation, fields: dict[str, Any]
) -> None:
    body = json.dumps({"messages": [{}], "input": "a", "model": "m", **fields}).encode()
    request = read(operation, body)
    asked = json.loads(request.for_provider("m", True)).get("stream_options")
    assert bool(asked) is request.stream
    assert request.for_provider("m", False) == body
    assert request.stream is (operation is CHAT and fields["stream"])


@pytest.mark.parametrize(
    ("operation", "body", "answers"),
    [
        (CHAT, b'{"messages": [{}, {}, {}]}', 1),
        (CHAT, b'{"messages": [{}], "n": 3}', 3),
        (CHAT, b'{"messages": [{}], "n": 0}', 1),
        (CHAT, b'{"messages": [{}], "n": -3}', 1),
        (CHAT, b'{"messages": [{}], "n": "3"}', 1),
        (CHAT, b'{"messages": [{}], "n": 1000000000}', 128),
        (COMPLETION, b'{"prompt": "a"}', 1),
        (COMPLETION, b'{"prompt": ["a", "b", "c"], "n": 2}', 6),
        (COMPLETION, b'{"prompt": [1, 2, 3]}', 1),
        (COMPLETION, b'{"prompt": [[1, 2], [3]]}', 2),
        (COMPLETION, b'{"prompt": [ ]}', 1),
    ],
)
def test_an_answer_has_so_many_choices_for_each_prompt(
    operation: Operation, body: bytes, answers: int
) -> None:
    assert read(operation, body).answers == answers


BASE64 = "QUJD" * 500_000


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}},
        {"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{BASE64}"}},
        {"type": "file", "file": {"file_data": BASE64}},
    ],
)
def test_data_within_a_prompt_is_no_text(part: dict[str, Any]) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}
    body = json.dumps({"messages": [message]}).encode()
    assert read(CHAT, body).input_bytes < 200


def test_text_is_text_however_long() -> None:
    body = json.dumps({"messages": [{"content": "many words " * 1000}]}).encode()
    assert read(CHAT, body).input_bytes > 11_000


def test_half_a_character_is_refused_in_words_that_are_true() -> None:
    detail = refused(CHAT, b'{"messages": [{"content": "\\ud83d"}]}').detail
    assert "whole characters" in detail
