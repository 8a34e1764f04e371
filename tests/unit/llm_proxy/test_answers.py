"""What is read of an answer: its usage in every shape, and nothing that isn't there."""

import json
from typing import Any

import pytest

from llm_proxy.answers import MAX_CHOICES, ProviderFailed, StreamAccumulator, estimate, read
from llm_proxy.reading import NotReadable
from llm_proxy.tokens import Tokens
from tests.support.upstream import CHAT_ANSWER, MODEL

TOKENS = Tokens(input=10, output=5)
CACHED = Tokens(10, 5, cached=4)
PLAIN = {"prompt_tokens": 10, "completion_tokens": 5}


def with_usage(usage: object) -> bytes:
    return json.dumps({**CHAT_ANSWER, "usage": usage}).encode()


USAGES: list[tuple[Any, Tokens | None]] = [
    (PLAIN, TOKENS),
    ({"prompt_tokens": 10, "total_tokens": 10}, Tokens(input=10)),
    ({**PLAIN, "prompt_tokens_details": None, "completion_tokens_details": None}, TOKENS),
    ({**PLAIN, "prompt_tokens_details": {}, "cost": 0.1, "nobody_knows": [{}]}, TOKENS),
    (
        {
            **PLAIN,
            "prompt_tokens_details": {
                "cached_tokens": 4,
                "audio_tokens": 2,
                "cache_write_tokens": 1,
                "text_tokens": 8,
            },
            "completion_tokens_details": {
                "reasoning_tokens": 3,
                "audio_tokens": 1,
                "accepted_prediction_tokens": 0,
            },
        },
        Tokens(10, 5, cached=4, cache_write=1, input_audio=2, output_audio=1, reasoning=3),
    ),
    ({"prompt_tokens": 0, "completion_tokens": 0}, Tokens()),
    (None, None),
    ({}, None),
    ({"completion_tokens": 5}, None),
    ("many", None),
    ([], None),
    ({"prompt_tokens": "10", "completion_tokens": 5.0}, TOKENS),
    ({"prompt_tokens": "ten"}, None),
    ({"prompt_tokens": "-1"}, None),
    ({"prompt_tokens": 10.5}, None),
    ({"prompt_tokens": "9" * 5000}, None),
    # reasoning beside the completion, told in the details and the total, or in the total alone
    (
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 357,
            "completion_tokens_details": {"reasoning_tokens": 316},
        },
        Tokens(32, 325, reasoning=316),
    ),
    ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 357}, Tokens(32, 325)),
    ({"prompt_tokens": 32, "total_tokens": 357}, Tokens(32, 325)),
    ({**PLAIN, "total_tokens": 12}, TOKENS),
    ({**PLAIN, "total_tokens": "many"}, TOKENS),
    # cached tokens under other names
    ({**PLAIN, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 6}, CACHED),
    ({**PLAIN, "cached_tokens": 4}, CACHED),
    ({**PLAIN, "cached_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}, CACHED),
    ({**PLAIN, "cached_tokens": 4, "prompt_tokens_details": {"cached_tokens": None}}, CACHED),
    ({**PLAIN, "cached_tokens": "4"}, CACHED),
    ({"prompt_tokens": True}, None),
    ({"prompt_tokens": -1, "completion_tokens": 5}, None),
    ({**PLAIN, "prompt_tokens_details": {"cached_tokens": -1}}, TOKENS),
    ({"prompt_tokens": 10**12}, None),
    ({"prompt_tokens": 10**40}, None),
]


@pytest.mark.parametrize(("usage", "tokens"), USAGES)
def test_usage_is_what_the_provider_told_or_nothing(usage: object, tokens: Tokens | None) -> None:
    assert read(with_usage(usage)).tokens == tokens


@pytest.mark.parametrize(("usage", "tokens"), USAGES)
@pytest.mark.parametrize("choices", [[], [{"delta": {"content": "a"}}]])
def test_a_streams_usage_is_read_like_that_of_a_whole_answer(
    usage: object, tokens: Tokens | None, choices: list[Any]
) -> None:
    tally = StreamAccumulator()
    tally.add(json.dumps({"choices": choices, "usage": usage}).encode())
    assert tally.info.tokens == tokens


def test_what_an_answer_says_of_itself() -> None:
    said = read(json.dumps({**CHAT_ANSWER, "service_tier": "flex"}).encode())
    assert (said.id, said.model, said.service_tier) == ("chatcmpl-1", MODEL, "flex")
    assert said.finish_reasons == ("stop",)


WHOLE = (MODEL, "chatcmpl-1", Tokens(1000, 100, cached=400), ("stop",))


@pytest.mark.parametrize(
    ("changed", "at", "instead"),
    [
        ({"choices": [None]}, 3, ()),
        ({"choices": {}}, 3, ()),
        ({"choices": [{"finish_reason": 7}]}, 3, ()),
        ({"choices": [7, {"finish_reason": "stop"}]}, 3, ("stop",)),
        ({"model": 7}, 0, None),
        ({"model": "m" * 1000}, 0, "m" * 256),
        ({"id": {}}, 1, None),
        ({"id": "i" * 1000}, 1, "i" * 256),
        ({"service_tier": []}, 0, MODEL),
        ({"choices": [{"finish_reason": "r" * 1000}]}, 3, ("r" * 64,)),
        ({"usage": {**PLAIN, "prompt_tokens_details": "many"}}, 2, TOKENS),
        ({"usage": {**PLAIN, "completion_tokens_details": [1]}}, 2, TOKENS),
        ({"usage": [PLAIN]}, 2, None),
    ],
)
def test_a_field_of_another_form_is_left_out_alone(
    changed: dict[str, Any], at: int, instead: object
) -> None:
    said = read(json.dumps({**CHAT_ANSWER, **changed}).encode())
    expected: list[object] = [*WHOLE]
    expected[at] = instead
    assert [said.model, said.id, said.tokens, said.finish_reasons] == expected


@pytest.mark.parametrize(
    ("changed", "text_bytes"),
    [
        ({"id": 7}, 3),
        ({"model": {"name": "m"}}, 3),
        ({"system_fingerprint": float("nan"), "created": float("inf")}, 3),
        ({"choices": [{"delta": {"content": [{"text": "abc"}]}}, {"delta": {"content": "ab"}}]}, 2),
        ({"choices": [None, {"index": "0", "delta": {"content": "abc", "tool_calls": 7}}]}, 4),
    ],
)
def test_a_streams_field_of_another_form_is_left_out_alone(
    changed: dict[str, Any], text_bytes: int
) -> None:
    tally = StreamAccumulator()
    usual = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "abc"}}]}
    tally.add(json.dumps({**usual, **changed, "usage": PLAIN}).encode())
    assert tally.text_bytes == text_bytes
    assert tally.info.tokens == TOKENS


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b'{"id": ', b"[]", b"null", b'"a"', b"\xff", b"[{}, {}]", b'{"a": "\\ud8"}'],
)
def test_what_is_no_json_object_is_not_readable(content: bytes) -> None:
    with pytest.raises(NotReadable):
        read(content)


ODD = [
    (b'"a \\ud83d"', b"half a character"),
    (b'"\\ude00 b"', b"the other half"),
    (b'"a \xf0\x9f"', b"half a character's bytes"),
    (b'"\x98\x80"', b"the other half of the bytes"),
    (b'"", "logprob": -Infinity', b"a number that JSON has not"),
    (b'"", "logprob": NaN', b"another"),
]


@pytest.mark.parametrize("odd", [odd for odd, _ in ODD], ids=[name.decode() for _, name in ODD])
def test_what_callers_can_read_is_read(odd: bytes) -> None:
    usage = b'"usage": {"prompt_tokens": 10, "completion_tokens": 5}'
    head = b'{"model": "m", ' + usage + b', "choices": [{"finish_reason": "stop", '
    said = read(head + b'"message": {"content": ' + odd + b"}}]}")
    assert (said.model, said.tokens, said.finish_reasons) == ("m", TOKENS, ("stop",))
    tally = StreamAccumulator()
    assert not tally.add(head + b'"delta": {"content": ' + odd + b"}}]}")
    assert (tally.info.model, tally.info.tokens, tally.finished) == ("m", TOKENS, True)


def test_what_telemetry_is_told_has_whole_characters() -> None:
    said = read(b'{"id": "\\ud83d", "model": "m\\ude00", "choices": []}')
    assert (said.id, said.model) == ("?", "m?")


@pytest.mark.parametrize(
    "event",
    [
        {"choices": [{"index": 0, "delta": {}, "usage": PLAIN}]},
        {"choices": [], "x_groq": {"id": "1", "usage": PLAIN}},
        {"choices": [{"delta": {}}], "x_groq": {"usage": PLAIN}},
    ],
)
def test_a_streams_usage_may_stand_elsewhere(event: dict[str, Any]) -> None:
    assert tally(event).info.tokens == TOKENS


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"error": {"message": "Rate limit", "code": 429}}', 429),
        (b'{"error": {"message": "Rate limit", "code": "429"}}', 429),
        (b'{"error": {"message": "Rate limit", "status": 429}}', 429),
        (b'{"error": {"message": "Rate limit", "code": "rate_limit", "status": "429"}}', 429),
        (b'{"error": {"message": "Rate limit"}, "code": 429}', 429),
        (b'{"error": "Rate limit", "status": 429}', 429),
        (b'{"object": "error", "message": "Rate limit", "code": 429}', 429),
        (b'{"message": "Rate limit", "status": "429"}', 429),
        (b'[{"error": {"message": "Rate limit", "code": 429}}]', 429),
        (b'{"error": {"message": "Rate limit", "code": "4290"}}', None),
    ],
)
def test_an_errors_status_is_found_wherever_providers_put_it(
    content: bytes, status: int | None
) -> None:
    with pytest.raises(ProviderFailed) as whole:
        read(content)
    with pytest.raises(ProviderFailed) as streamed:
        StreamAccumulator().add(content)
    assert (whole.value.status, streamed.value.status) == (status, status)


@pytest.mark.parametrize(
    "content", [b'{"message": "hello"}', b'{"data": [], "message": "m", "code": 429}', b"{}"]
)
def test_an_object_that_tells_of_no_error_is_none(content: bytes) -> None:
    assert read(content).tokens is None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"message": "overloaded", "code": 503}, 503),
        ({"message": "no", "code": "model_not_found"}, None),
        ({"message": "no", "code": 200}, None),
        ({"message": "no", "code": 10**9}, None),
        ({"message": "no", "code": True}, None),
        ("model not found", None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("choices", [{}, {"choices": None}, {"choices": []}])
def test_an_error_in_an_answers_place_is_the_providers(
    error: object, status: int | None, choices: dict[str, Any]
) -> None:
    content = json.dumps({"error": error, **choices}).encode()
    with pytest.raises(ProviderFailed) as raised:
        read(content)
    assert (raised.value.status, raised.value.content) == (status, content)


@pytest.mark.parametrize("error", [None, {"message": "one of the choices was cut"}])
def test_an_answer_may_have_a_field_for_errors(error: object) -> None:
    said = read(json.dumps({**CHAT_ANSWER, "error": error}).encode())
    assert said.tokens is not None


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        ({"choices": [{"message": {"content": "a" * 8}}]}, 2),
        ({"choices": [{"text": "a" * 9}]}, 3),
        ({"choices": [{"message": {"content": "aaaa"}}, {"message": {"content": "aaaa"}}]}, 2),
        ({"choices": [{"message": {"content": None, "refusal": "aaaa"}}]}, 1),
        ({"choices": [{"message": {"reasoning_content": "a" * 40, "content": ""}}]}, 10),
        ({"choices": [{"message": {"content": [{"text": "a"}]}}]}, 0),
        ({"data": []}, 0),
        ({"choices": None}, 0),
    ],
)
def test_what_nobody_counted_is_estimated_from_the_text(
    answer: dict[str, Any], output: int
) -> None:
    assert estimate(json.dumps(answer).encode(), 41) == Tokens(11, output, estimated=True)


def test_the_arguments_of_tools_are_text_too() -> None:
    call = {"function": {"name": "f", "arguments": "a" * 100}}
    answer = {"choices": [{"message": {"content": None, "tool_calls": [call]}}]}
    assert estimate(json.dumps(answer).encode(), 0).output > 25


# Streams


def tally(
    *events: dict[str, Any] | bytes, choices: int = 1, broken: bool = False
) -> StreamAccumulator:
    found = StreamAccumulator(choices)
    for each in events:
        found.add(each if isinstance(each, bytes) else json.dumps(each).encode())
    found.end(broken=broken)
    return found


def ending(index: object, reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {}, "finish_reason": reason}]}


def test_a_tally_adds_up_what_the_events_say() -> None:
    found = tally(
        {"id": "1", "model": "m", "choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"id": "1", "model": "m", "choices": [{"delta": {"content": "hel"}}], "usage": None},
        {"id": "2", "model": "n", "choices": [{"delta": {"content": "lo"}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}], "service_tier": "flex"},
        {"choices": [], "usage": PLAIN},
        b"[DONE]",
    )
    assert (found.info.id, found.info.model, found.info.service_tier) == ("1", "m", "flex")
    assert (found.text_bytes, found.info.tokens, found.finished) == (5, TOKENS, True)
    assert found.info.finish_reasons == ("stop",)


def test_the_last_usage_counts_and_none_takes_it_away() -> None:
    first = {"prompt_tokens": 10, "completion_tokens": 1}
    found = tally({"usage": first}, {"usage": PLAIN}, {"usage": None}, {"usage": {}})
    assert found.info.tokens == TOKENS


@pytest.mark.parametrize(
    ("event", "only_usage"),
    [
        ({"choices": [], "usage": PLAIN}, True),
        ({"usage": PLAIN}, True),
        ({"choices": [{"delta": {"content": "a"}}], "usage": PLAIN}, False),
        ({"choices": [], "usage": None}, False),
        ({"choices": [], "prompt_filter_results": []}, False),
    ],
)
def test_an_event_that_only_tells_the_usage_is_known(
    event: dict[str, Any], only_usage: bool
) -> None:
    assert StreamAccumulator().add(json.dumps(event).encode()) is only_usage


def test_reasons_are_in_the_order_of_their_choices() -> None:
    found = tally(ending(1, "length"), ending(0), choices=2)
    assert (found.info.finish_reasons, found.finished) == (("stop", "length"), True)


@pytest.mark.parametrize(
    ("events", "choices", "finished"),
    [
        ([ending(0), ending(0)], 2, False),
        ([ending(0), ending(0, "length"), ending(0)], 3, False),
        ([ending(0), ending(1)], 3, False),
        ([ending(0), ending(0)], 1, True),
        ([ending(0), ending(0), ending(1)], 2, True),
        ([ending("a"), ending(None)], 2, False),
        ([ending(0), b"[DONE]"], 2, True),
    ],
)
def test_a_stream_is_whole_when_each_choice_has_ended_or_the_provider_says_so(
    events: list[Any], choices: int, finished: bool
) -> None:
    assert tally(*events, choices=choices).finished is finished


@pytest.mark.parametrize(
    ("events", "choices", "reasons"),
    [
        ([], 1, ("error",)),
        ([], 3, ("error", "error", "error")),
        ([ending(1)], 2, ("error", "stop")),
        ([ending(0), ending(0)], 2, ("stop", "error")),
        ([ending(4, "length")], 2, ("error", "error", "length")),
    ],
)
def test_choices_of_a_broken_stream_that_did_not_end_broke(
    events: list[Any], choices: int, reasons: tuple[str, ...]
) -> None:
    assert tally(*events, choices=choices, broken=True).info.finish_reasons == reasons


def test_no_more_choices_are_told_apart_than_a_call_may_have() -> None:
    assert len(tally(*map(ending, range(1000))).info.finish_reasons) == MAX_CHOICES


@pytest.mark.parametrize(
    "event",
    [
        {"choices": [{"delta": {"content": [{"type": "thinking"}]}}]},
        {"choices": [{"delta": "a"}]},
        {"choices": {}},
        {"id": 7},
        {"choices": [], "usage": "many"},
    ],
)
def test_an_odd_event_says_nothing_and_is_no_error(event: dict[str, Any]) -> None:
    found = tally({"model": "m"}, event, {"choices": [], "usage": PLAIN})
    assert (found.info.model, found.info.tokens) == ("m", TOKENS)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"DONE", b"\xff", b"[DONE"])
def test_an_event_that_is_no_json_object_is_not_readable(content: bytes) -> None:
    with pytest.raises(NotReadable) as raised:
        StreamAccumulator().add(content)
    assert not isinstance(raised.value, ProviderFailed)


@pytest.mark.parametrize("error", [{"message": "overloaded"}, "overloaded", {}])
def test_an_error_in_a_stream_is_the_providers(error: object) -> None:
    with pytest.raises(ProviderFailed):
        tally({"error": error})
