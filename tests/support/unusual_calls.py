"""Calls whose spans have what those of the span cases and of the demo lack."""

from typing import Any

from tests.support.llm import chat, embed
from tests.support.openai_standin import Step
from tests.support.span_cases import LOCAL, V1_CHAT

WHO = {"x-user-id": "alice", "x-session-id": "alice-1", "x-tenant-id": "house"}
WINDOW = 1024
EVERY_TOKEN = {
    "prompt_tokens": 10,
    "completion_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1, "audio_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 1},
}


def unusual() -> list[tuple[str, str, dict[str, Any] | None]]:
    """Calls whose spans have what those of the cases and the scenarios lack."""
    sampling = {"top_p": 0.9, "seed": 7, "n": 2, "max_tokens": 8, "temperature": 0.5}
    system = [{"role": "system", "content": "Be brief."}, *V1_CHAT["messages"]]
    calls = [
        chat(Step(usage="cached"), **sampling, messages=system),
        chat(Step(usage="absent"), stream=True),
        chat(Step(), model="house-model"),
        embed(Step(), dimensions=256),
        chat(Step(usage=EVERY_TOKEN)),
    ]
    return [
        ("GET", "/health?probe=1", None),
        ("PROPFIND", "/chat", None),
        ("POST", "/local-inference", LOCAL | {"top_k": 5, "top_p": 0.9, "seed": 7}),
        *(("POST", one.path, one.body) for one in calls),
    ]
