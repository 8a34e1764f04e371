"""The sorts of calls in a storm."""

from collections.abc import Callable, Iterator
from typing import Any

from tests.support.llm import Call, chat, complete, embed
from tests.support.openai_standin import Step

Make = Callable[[], tuple[str, dict[str, Any]]]
"""A function that makes a call: its path and body."""


def sorts() -> Iterator[tuple[Make, bool]]:
    """The sorts of calls, each with whether its caller leaves within the answer."""

    def openai(made: Callable[..., Call], *steps: Step, **fields: Any) -> Make:
        def make() -> tuple[str, dict[str, Any]]:
            call = made(*steps, **fields)
            return call.path, call.body

        return make

    def own(path: str, **body: Any) -> Make:
        return lambda: (path, body)

    slow = Step(pace=0.01, chunks=40, size=400)
    bounded = {"max_tokens": 400}
    yield openai(chat, Step(), **bounded), False
    yield openai(chat, Step(pace=0.002), stream=True, **bounded), False
    yield openai(chat, Step(cut="mid_stream", size=400, chunks=40), stream=True, **bounded), False
    yield openai(chat, slow, stream=True, **bounded), True
    yield openai(chat, Step(status=500), Step(), **bounded), False
    yield openai(chat, Step(status=429, retry_after="0"), Step(), stream=True, **bounded), False
    yield openai(chat, Step(cut="before_first_byte"), Step(), **bounded), False
    yield openai(chat, Step(status=503), Step(status=503), Step(), **bounded), False
    yield openai(chat, Step(status=400), **bounded), False
    yield openai(chat, Step(usage="cached"), model="gpt-4o", **bounded), False
    yield openai(chat, Step(usage="absent"), **bounded), False
    yield openai(complete, Step(), **bounded), False
    yield openai(embed, Step()), False
    yield own("/chat", message="hi", max_tokens=200), False
    yield own("/search", query="plans"), False
    yield own("/local-inference", prompt="w1 w2", max_length=3), False
    yield own("/local-inference", prompt="w1", max_length=200, stream=True), True
