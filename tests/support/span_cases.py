"""Calls of the gateway and the span tree each must leave: see `test_span_cases.py`."""

from dataclasses import dataclass
from typing import Any

from tests.support.openai_standin import Step


@dataclass(frozen=True)
class Case:
    """One call: what the providers do with it, what the caller does, and its spans.

    `first` and `second` are the answers of the two providers, in turn; after them all are good. A
    caller with `leaves` goes away: 0 when the provider has its last request, or after so many events.
    """

    name: str
    path: str
    body: dict[str, Any]
    tree: str
    first: tuple[Step, ...] = ()
    second: tuple[Step, ...] = ()
    leaves: int | None = None
    local: bool = False
    """Through the gateway whose llm-proxy has the local model only, and no vector service."""
    seconds: float | None = None
    """How long the caller gives the gateway."""


STREAM = {"stream": True}
CHAT: dict[str, Any] = {"message": "Where is it?", "model": "gpt-4o-mini"}
V1_CHAT: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Where is it?"}],
}
V1_TEXT: dict[str, Any] = {"model": "gpt-3.5-turbo-instruct", "prompt": "Once upon a time"}
V1_EMBED: dict[str, Any] = {"model": "text-embedding-3-small", "input": ["one", "two"]}
KEPT = ["A kept text", "Another kept text"]
EMBED: dict[str, Any] = {
    "texts": KEPT,
    "ids": ["kept-1", "kept-2"],
    "metadata": [{"kind": "kept"}, {"kind": "kept"}],
}
SEARCH: dict[str, Any] = {
    "query": "What is kept?",
    "n_results": 3,
    "filter_metadata": {"kind": "kept"},
}
LOCAL: dict[str, Any] = {"prompt": "w1 w2 w3", "max_length": 8, "temperature": 0}
LONG: dict[str, Any] = {**LOCAL, "max_length": 512, "stream": True}
PIPELINE: dict[str, Any] = {"query": "w1 w2 w3", "max_tokens": 8}
ENDLESS: dict[str, Any] = {"query": "w1 w2 w3", "max_tokens": 512}
TINY_CHAT: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "w1 w2"}],
    "max_tokens": 8,
    "temperature": 0,
}
TINY_TEXT: dict[str, Any] = {
    "model": "tiny",
    "prompt": "w1 w2",
    "max_tokens": 8,
    "temperature": 0,
}
TINY_EMBED: dict[str, Any] = {"model": "all-MiniLM-L6-v2", "input": ["one", "two"]}

FAILS = Step(status=500)
BUSY = Step(status=429, retry_after="0")
WRONG = Step(status=400)
SILENT = Step(hang="before_first_byte")
HALF_SILENT = Step(hang="mid_stream", after=1)
HALF_CUT = Step(cut="mid_stream", after=1)

CASES = [
    # /chat
    Case(
        "a chat",
        "/chat",
        CHAT,
        """
        gateway SERVER POST /chat http=200
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200
              llm-proxy CLIENT chat gpt-4o-mini attempts=1 provider=first tokens=4→8 cost=0.0000054 price=price_list finish=stop
                llm-proxy CLIENT POST /v1/chat/completions http=200 to=first provider=first attempt=1 tokens=4→8 cost=0.0000054
        """,
    ),
    Case(
        "a chat that is wrong",
        "/chat",
        CHAT,
        """
        gateway SERVER POST /chat http=400
          gateway CLIENT POST /v1/chat/completions ERROR http=400 error=400 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=400
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=400 attempts=1 provider=first
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=400 error=400 to=first provider=first attempt=1
        """,
        first=(WRONG,),
    ),
    Case(
        "a chat no provider can answer",
        "/chat",
        CHAT,
        """
        gateway SERVER POST /chat ERROR http=502 error=502
          gateway CLIENT POST /v1/chat/completions ERROR http=502 error=502 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions ERROR http=502 error=502
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=500 attempts=3 provider=second
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=500 error=500 to=first provider=first attempt=1
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=500 error=500 to=first resend=1 provider=first attempt=2
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=500 error=500 to=second provider=second attempt=3
        """,
        first=(FAILS,) * 2,
        second=(FAILS,),
    ),
    Case(
        "a chat that is tried again",
        "/chat",
        CHAT,
        """
        gateway SERVER POST /chat http=200
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200
              llm-proxy CLIENT chat gpt-4o-mini attempts=2 provider=first tokens=4→8 cost=0.0000054 price=price_list finish=stop
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=429 error=429 to=first provider=first attempt=1
                llm-proxy CLIENT POST /v1/chat/completions http=200 to=first resend=1 provider=first attempt=2 tokens=4→8 cost=0.0000054
        """,
        first=(BUSY,),
    ),
    Case(
        "a chat the second provider answers",
        "/chat",
        CHAT,
        """
        gateway SERVER POST /chat http=200
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200
              llm-proxy CLIENT chat gpt-4o-mini attempts=3 provider=second tokens=4→8 cost=0.0000054 price=price_list finish=stop
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=500 error=500 to=first provider=first attempt=1
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=500 error=500 to=first resend=1 provider=first attempt=2
                llm-proxy CLIENT POST /v1/chat/completions http=200 to=second provider=second attempt=3 tokens=4→8 cost=0.0000054
        """,
        first=(FAILS,) * 2,
    ),
    Case(
        "a chat nobody answers in time",
        "/chat",
        CHAT,
        """
        gateway SERVER POST /chat ERROR http=504 error=504
          gateway CLIENT POST /v1/chat/completions ERROR http=504 error=504 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions ERROR http=504 error=504
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=timeout attempts=2 provider=second tokens=* cost=* price=price_list
                llm-proxy CLIENT POST /v1/chat/completions ERROR error=timeout to=first provider=first attempt=1 tokens=* cost=*
                llm-proxy CLIENT POST /v1/chat/completions ERROR error=timeout to=second provider=second attempt=2 tokens=* cost=*
        """,
        first=(SILENT,),
        second=(SILENT,),
    ),
    Case(
        "a chat whose caller gives too little time",
        "/chat",
        CHAT,
        """
        gateway SERVER POST /chat ERROR http=504 error=caller_deadline
          gateway CLIENT POST /v1/chat/completions ERROR http=504 error=504 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions ERROR http=504 error=caller_deadline
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=timeout attempts=2 provider=second tokens=* cost=* price=price_list
                llm-proxy CLIENT POST /v1/chat/completions ERROR error=timeout to=first provider=first attempt=1 tokens=* cost=*
                llm-proxy CLIENT POST /v1/chat/completions ERROR error=timeout to=second provider=second attempt=2 tokens=* cost=*
        """,
        first=(SILENT,),
        second=(SILENT,),
        seconds=0.5,
    ),
    Case(
        "a chat whose caller leaves",
        "/chat",
        CHAT,
        """
        gateway SERVER POST /chat error=client_disconnected
          gateway CLIENT POST /v1/chat/completions ERROR error=cancelled to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions error=client_disconnected
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=cancelled attempts=1 provider=first tokens=* cost=* price=price_list
                llm-proxy CLIENT POST /v1/chat/completions ERROR error=cancelled to=first provider=first attempt=1 tokens=* cost=*
        """,
        first=(SILENT,),
        leaves=0,
    ),
    Case(
        "a streamed chat",
        "/chat",
        CHAT | STREAM,
        """
        gateway SERVER POST /chat http=200
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200
              llm-proxy CLIENT chat gpt-4o-mini attempts=1 provider=first first_chunk=yes tokens=4→8 cost=0.0000054 price=price_list finish=stop
                llm-proxy CLIENT POST /v1/chat/completions http=200 to=first provider=first attempt=1 tokens=4→8 cost=0.0000054
        """,
    ),
    Case(
        "a streamed chat that is wrong",
        "/chat",
        CHAT | STREAM,
        """
        gateway SERVER POST /chat http=400
          gateway CLIENT POST /v1/chat/completions ERROR http=400 error=400 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=400
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=400 attempts=1 provider=first
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=400 error=400 to=first provider=first attempt=1
        """,
        first=(WRONG,),
    ),
    Case(
        "a streamed chat of the second provider",
        "/chat",
        CHAT | STREAM,
        """
        gateway SERVER POST /chat http=200
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200
              llm-proxy CLIENT chat gpt-4o-mini attempts=2 provider=second first_chunk=yes tokens=~15→8 cost=0.00000705 price=price_list finish=stop
                llm-proxy CLIENT POST /v1/chat/completions ERROR error=timeout to=first provider=first attempt=1 tokens=~11→0 cost=0.00000165
                llm-proxy CLIENT POST /v1/chat/completions http=200 to=second provider=second attempt=2 tokens=4→8 cost=0.0000054
        """,
        first=(SILENT,),
    ),
    Case(
        "a streamed chat that is cut",
        "/chat",
        CHAT | STREAM,
        """
        gateway SERVER POST /chat ERROR http=200 error=stream_broken
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions ERROR http=200 error=stream_broken
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=connection_lost attempts=1 provider=first tokens=~11→2 cost=0.00000285 price=price_list finish=error
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=200 error=connection_lost to=first provider=first attempt=1 tokens=~11→2 cost=0.00000285
        """,
        first=(HALF_CUT,),
    ),
    Case(
        "a streamed chat that falls silent",
        "/chat",
        CHAT | STREAM,
        """
        gateway SERVER POST /chat ERROR http=200 error=stream_broken
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions ERROR http=200 error=stream_broken
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=timeout attempts=1 provider=first tokens=~11→2 cost=0.00000285 price=price_list finish=error
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=200 error=timeout to=first provider=first attempt=1 tokens=~11→2 cost=0.00000285
        """,
        first=(HALF_SILENT,),
    ),
    Case(
        "a streamed chat left in its middle",
        "/chat",
        CHAT | STREAM,
        """
        gateway SERVER POST /chat http=200 error=client_disconnected
          gateway CLIENT POST /v1/chat/completions ERROR http=200 error=cancelled to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200 error=client_disconnected
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=cancelled attempts=1 provider=first tokens=~11→2 cost=0.00000285 price=price_list finish=error
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=200 error=cancelled to=first provider=first attempt=1 tokens=~11→2 cost=0.00000285
        """,
        first=(HALF_SILENT,),
        leaves=1,
    ),
    Case(
        "a chat of the local model",
        "/chat",
        {"message": "w1 w2", "max_tokens": 8, "temperature": 0},
        """
        gateway SERVER POST /chat http=200
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200
              llm-proxy CLIENT chat tiny attempts=1 provider=o11y-local tokens=6→8 cost=0 price=free finish=length
                llm-proxy CLIENT POST /v1/chat/completions http=200 to=inference-svc provider=o11y-local attempt=1 tokens=6→8 cost=0
                  inference-svc SERVER POST /v1/chat/completions http=200
                    inference-svc INTERNAL chat tiny provider=o11y-local first_token=yes tokens=6→8 finish=length
        """,
        local=True,
    ),
    Case(
        "a streamed chat of the local model",
        "/chat",
        {"message": "w1 w2", "max_tokens": 8, "temperature": 0, "stream": True},
        """
        gateway SERVER POST /chat http=200
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200
              llm-proxy CLIENT chat tiny attempts=1 provider=o11y-local first_chunk=yes tokens=6→8 cost=0 price=free finish=length
                llm-proxy CLIENT POST /v1/chat/completions http=200 to=inference-svc provider=o11y-local attempt=1 tokens=6→8 cost=0
                  inference-svc SERVER POST /v1/chat/completions http=200
                    inference-svc INTERNAL chat tiny provider=o11y-local first_token=yes tokens=6→8 finish=length
        """,
        local=True,
    ),
    # /v1/chat/completions
    Case(
        "v1 chat",
        "/v1/chat/completions",
        V1_CHAT,
        """
        gateway SERVER POST /v1/chat/completions http=200
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200
              llm-proxy CLIENT chat gpt-4o-mini attempts=1 provider=first tokens=4→8 cost=0.0000054 price=price_list finish=stop
                llm-proxy CLIENT POST /v1/chat/completions http=200 to=first provider=first attempt=1 tokens=4→8 cost=0.0000054
        """,
    ),
    Case(
        "v1 chat that is wrong",
        "/v1/chat/completions",
        V1_CHAT,
        """
        gateway SERVER POST /v1/chat/completions http=400
          gateway CLIENT POST /v1/chat/completions ERROR http=400 error=400 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=400
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=400 attempts=1 provider=first
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=400 error=400 to=first provider=first attempt=1
        """,
        first=(WRONG,),
    ),
    Case(
        "v1 chat no provider can answer",
        "/v1/chat/completions",
        V1_CHAT,
        """
        gateway SERVER POST /v1/chat/completions ERROR http=502 error=502
          gateway CLIENT POST /v1/chat/completions ERROR http=502 error=502 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions ERROR http=502 error=502
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=500 attempts=3 provider=second
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=500 error=500 to=first provider=first attempt=1
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=500 error=500 to=first resend=1 provider=first attempt=2
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=500 error=500 to=second provider=second attempt=3
        """,
        first=(FAILS,) * 2,
        second=(FAILS,),
    ),
    Case(
        "v1 chat that is tried again",
        "/v1/chat/completions",
        V1_CHAT,
        """
        gateway SERVER POST /v1/chat/completions http=200
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200
              llm-proxy CLIENT chat gpt-4o-mini attempts=2 provider=first tokens=4→8 cost=0.0000054 price=price_list finish=stop
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=500 error=500 to=first provider=first attempt=1
                llm-proxy CLIENT POST /v1/chat/completions http=200 to=first resend=1 provider=first attempt=2 tokens=4→8 cost=0.0000054
        """,
        first=(FAILS,),
    ),
    Case(
        "v1 chat the second provider answers",
        "/v1/chat/completions",
        V1_CHAT,
        """
        gateway SERVER POST /v1/chat/completions http=200
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200
              llm-proxy CLIENT chat gpt-4o-mini attempts=3 provider=second tokens=4→8 cost=0.0000054 price=price_list finish=stop
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=429 error=429 to=first provider=first attempt=1
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=429 error=429 to=first resend=1 provider=first attempt=2
                llm-proxy CLIENT POST /v1/chat/completions http=200 to=second provider=second attempt=3 tokens=4→8 cost=0.0000054
        """,
        first=(BUSY,) * 2,
    ),
    Case(
        "v1 chat nobody answers in time",
        "/v1/chat/completions",
        V1_CHAT,
        """
        gateway SERVER POST /v1/chat/completions ERROR http=504 error=504
          gateway CLIENT POST /v1/chat/completions ERROR http=504 error=504 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions ERROR http=504 error=504
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=timeout attempts=2 provider=second tokens=* cost=* price=price_list
                llm-proxy CLIENT POST /v1/chat/completions ERROR error=timeout to=first provider=first attempt=1 tokens=* cost=*
                llm-proxy CLIENT POST /v1/chat/completions ERROR error=timeout to=second provider=second attempt=2 tokens=* cost=*
        """,
        first=(SILENT,),
        second=(SILENT,),
    ),
    Case(
        "v1 chat whose caller leaves",
        "/v1/chat/completions",
        V1_CHAT,
        """
        gateway SERVER POST /v1/chat/completions error=client_disconnected
          gateway CLIENT POST /v1/chat/completions ERROR error=cancelled to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions error=client_disconnected
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=cancelled attempts=1 provider=first tokens=* cost=* price=price_list
                llm-proxy CLIENT POST /v1/chat/completions ERROR error=cancelled to=first provider=first attempt=1 tokens=* cost=*
        """,
        first=(SILENT,),
        leaves=0,
    ),
    Case(
        "v1 chat streamed",
        "/v1/chat/completions",
        V1_CHAT | STREAM,
        """
        gateway SERVER POST /v1/chat/completions http=200
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200
              llm-proxy CLIENT chat gpt-4o-mini attempts=1 provider=first first_chunk=yes tokens=4→8 cost=0.0000054 price=price_list finish=stop
                llm-proxy CLIENT POST /v1/chat/completions http=200 to=first provider=first attempt=1 tokens=4→8 cost=0.0000054
        """,
    ),
    Case(
        "v1 chat streamed, read until DONE",
        "/v1/chat/completions",
        V1_CHAT | STREAM,
        """
        gateway SERVER POST /v1/chat/completions http=200
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200
              llm-proxy CLIENT chat gpt-4o-mini attempts=1 provider=first first_chunk=yes tokens=4→8 cost=0.0000054 price=price_list finish=stop
                llm-proxy CLIENT POST /v1/chat/completions http=200 to=first provider=first attempt=1 tokens=4→8 cost=0.0000054
        """,
        leaves=11,
    ),
    Case(
        "v1 chat streamed, tried again",
        "/v1/chat/completions",
        V1_CHAT | STREAM,
        """
        gateway SERVER POST /v1/chat/completions http=200
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200
              llm-proxy CLIENT chat gpt-4o-mini attempts=2 provider=first first_chunk=yes tokens=4→8 cost=0.0000054 price=price_list finish=stop
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=500 error=500 to=first provider=first attempt=1
                llm-proxy CLIENT POST /v1/chat/completions http=200 to=first resend=1 provider=first attempt=2 tokens=4→8 cost=0.0000054
        """,
        first=(FAILS,),
    ),
    Case(
        "v1 chat streamed that is cut",
        "/v1/chat/completions",
        V1_CHAT | STREAM,
        """
        gateway SERVER POST /v1/chat/completions ERROR http=200 error=stream_broken
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions ERROR http=200 error=stream_broken
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=connection_lost attempts=1 provider=first tokens=~12→2 cost=0.000003 price=price_list finish=error
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=200 error=connection_lost to=first provider=first attempt=1 tokens=~12→2 cost=0.000003
        """,
        first=(HALF_CUT,),
    ),
    Case(
        "v1 chat streamed that falls silent",
        "/v1/chat/completions",
        V1_CHAT | STREAM,
        """
        gateway SERVER POST /v1/chat/completions ERROR http=200 error=stream_broken
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions ERROR http=200 error=stream_broken
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=timeout attempts=1 provider=first tokens=~12→2 cost=0.000003 price=price_list finish=error
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=200 error=timeout to=first provider=first attempt=1 tokens=~12→2 cost=0.000003
        """,
        first=(HALF_SILENT,),
    ),
    Case(
        "v1 chat streamed, left in its middle",
        "/v1/chat/completions",
        V1_CHAT | STREAM,
        """
        gateway SERVER POST /v1/chat/completions http=200 error=client_disconnected
          gateway CLIENT POST /v1/chat/completions ERROR http=200 error=cancelled to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200 error=client_disconnected
              llm-proxy CLIENT chat gpt-4o-mini ERROR error=cancelled attempts=1 provider=first tokens=~12→2 cost=0.000003 price=price_list finish=error
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=200 error=cancelled to=first provider=first attempt=1 tokens=~12→2 cost=0.000003
        """,
        first=(HALF_SILENT,),
        leaves=2,
    ),
    Case(
        "v1 chat of the local model",
        "/v1/chat/completions",
        TINY_CHAT,
        """
        gateway SERVER POST /v1/chat/completions http=200
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200
              llm-proxy CLIENT chat tiny attempts=1 provider=o11y-local tokens=6→8 cost=0 price=free finish=length
                llm-proxy CLIENT POST /v1/chat/completions http=200 to=inference-svc provider=o11y-local attempt=1 tokens=6→8 cost=0
                  inference-svc SERVER POST /v1/chat/completions http=200
                    inference-svc INTERNAL chat tiny provider=o11y-local first_token=yes tokens=6→8 finish=length
        """,
        local=True,
    ),
    Case(
        "v1 chat of the local model, streamed",
        "/v1/chat/completions",
        TINY_CHAT | STREAM,
        """
        gateway SERVER POST /v1/chat/completions http=200
          gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200
              llm-proxy CLIENT chat tiny attempts=1 provider=o11y-local first_chunk=yes tokens=6→8 cost=0 price=free finish=length
                llm-proxy CLIENT POST /v1/chat/completions http=200 to=inference-svc provider=o11y-local attempt=1 tokens=6→8 cost=0
                  inference-svc SERVER POST /v1/chat/completions http=200
                    inference-svc INTERNAL chat tiny provider=o11y-local first_token=yes tokens=6→8 finish=length
        """,
        local=True,
    ),
    Case(
        "v1 chat of the local model, left in its middle",
        "/v1/chat/completions",
        TINY_CHAT | STREAM | {"max_tokens": 512},
        """
        gateway SERVER POST /v1/chat/completions http=200 error=client_disconnected
          gateway CLIENT POST /v1/chat/completions ERROR http=200 error=cancelled to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=200 error=client_disconnected
              llm-proxy CLIENT chat tiny ERROR error=cancelled attempts=1 provider=o11y-local tokens=* cost=0 price=free finish=error
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=200 error=cancelled to=inference-svc provider=o11y-local attempt=1 tokens=* cost=0
                  inference-svc SERVER POST /v1/chat/completions http=200 error=client_disconnected
                    inference-svc INTERNAL chat tiny ERROR error=cancelled provider=o11y-local tokens=* finish=error
        """,
        leaves=2,
        local=True,
    ),
    Case(
        "v1 chat the local model has no place for",
        "/v1/chat/completions",
        TINY_CHAT | {"n": 5},
        """
        gateway SERVER POST /v1/chat/completions http=429
          gateway CLIENT POST /v1/chat/completions ERROR http=429 error=429 to=llm-proxy
            llm-proxy SERVER POST /v1/chat/completions http=429
              llm-proxy CLIENT chat tiny ERROR error=429 attempts=1 provider=o11y-local
                llm-proxy CLIENT POST /v1/chat/completions ERROR http=429 error=429 to=inference-svc provider=o11y-local attempt=1
                  inference-svc SERVER POST /v1/chat/completions http=429
                    inference-svc INTERNAL chat tiny ERROR error=busy provider=o11y-local
        """,
        local=True,
    ),
    # /v1/completions
    Case(
        "v1 text",
        "/v1/completions",
        V1_TEXT,
        """
        gateway SERVER POST /v1/completions http=200
          gateway CLIENT POST /v1/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/completions http=200
              llm-proxy CLIENT text_completion gpt-3.5-turbo-instruct attempts=1 provider=first tokens=4→8 cost=0.000022 price=price_list finish=stop
                llm-proxy CLIENT POST /v1/completions http=200 to=first provider=first attempt=1 tokens=4→8 cost=0.000022
        """,
    ),
    Case(
        "v1 text that is wrong",
        "/v1/completions",
        V1_TEXT,
        """
        gateway SERVER POST /v1/completions http=400
          gateway CLIENT POST /v1/completions ERROR http=400 error=400 to=llm-proxy
            llm-proxy SERVER POST /v1/completions http=400
              llm-proxy CLIENT text_completion gpt-3.5-turbo-instruct ERROR error=400 attempts=1 provider=first
                llm-proxy CLIENT POST /v1/completions ERROR http=400 error=400 to=first provider=first attempt=1
        """,
        first=(WRONG,),
    ),
    Case(
        "v1 text no provider can answer",
        "/v1/completions",
        V1_TEXT,
        """
        gateway SERVER POST /v1/completions ERROR http=502 error=502
          gateway CLIENT POST /v1/completions ERROR http=502 error=502 to=llm-proxy
            llm-proxy SERVER POST /v1/completions ERROR http=502 error=502
              llm-proxy CLIENT text_completion gpt-3.5-turbo-instruct ERROR error=500 attempts=3 provider=second
                llm-proxy CLIENT POST /v1/completions ERROR http=500 error=500 to=first provider=first attempt=1
                llm-proxy CLIENT POST /v1/completions ERROR http=500 error=500 to=first resend=1 provider=first attempt=2
                llm-proxy CLIENT POST /v1/completions ERROR http=500 error=500 to=second provider=second attempt=3
        """,
        first=(FAILS,) * 2,
        second=(FAILS,),
    ),
    Case(
        "v1 text the second provider answers",
        "/v1/completions",
        V1_TEXT,
        """
        gateway SERVER POST /v1/completions http=200
          gateway CLIENT POST /v1/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/completions http=200
              llm-proxy CLIENT text_completion gpt-3.5-turbo-instruct attempts=3 provider=second tokens=4→8 cost=0.000022 price=price_list finish=stop
                llm-proxy CLIENT POST /v1/completions ERROR http=500 error=500 to=first provider=first attempt=1
                llm-proxy CLIENT POST /v1/completions ERROR http=500 error=500 to=first resend=1 provider=first attempt=2
                llm-proxy CLIENT POST /v1/completions http=200 to=second provider=second attempt=3 tokens=4→8 cost=0.000022
        """,
        first=(FAILS,) * 2,
    ),
    Case(
        "v1 text streamed",
        "/v1/completions",
        V1_TEXT | STREAM,
        """
        gateway SERVER POST /v1/completions http=200
          gateway CLIENT POST /v1/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/completions http=200
              llm-proxy CLIENT text_completion gpt-3.5-turbo-instruct attempts=1 provider=first first_chunk=yes tokens=4→8 cost=0.000022 price=price_list finish=stop
                llm-proxy CLIENT POST /v1/completions http=200 to=first provider=first attempt=1 tokens=4→8 cost=0.000022
        """,
    ),
    Case(
        "v1 text streamed that is cut",
        "/v1/completions",
        V1_TEXT | STREAM,
        """
        gateway SERVER POST /v1/completions ERROR http=200 error=stream_broken
          gateway CLIENT POST /v1/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/completions ERROR http=200 error=stream_broken
              llm-proxy CLIENT text_completion gpt-3.5-turbo-instruct ERROR error=connection_lost attempts=1 provider=first tokens=~5→2 cost=0.0000115 price=price_list finish=error
                llm-proxy CLIENT POST /v1/completions ERROR http=200 error=connection_lost to=first provider=first attempt=1 tokens=~5→2 cost=0.0000115
        """,
        first=(HALF_CUT,),
    ),
    Case(
        "v1 text streamed, left in its middle",
        "/v1/completions",
        V1_TEXT | STREAM,
        """
        gateway SERVER POST /v1/completions http=200 error=client_disconnected
          gateway CLIENT POST /v1/completions ERROR http=200 error=cancelled to=llm-proxy
            llm-proxy SERVER POST /v1/completions http=200 error=client_disconnected
              llm-proxy CLIENT text_completion gpt-3.5-turbo-instruct ERROR error=cancelled attempts=1 provider=first tokens=~5→2 cost=0.0000115 price=price_list finish=error
                llm-proxy CLIENT POST /v1/completions ERROR http=200 error=cancelled to=first provider=first attempt=1 tokens=~5→2 cost=0.0000115
        """,
        first=(HALF_SILENT,),
        leaves=1,
    ),
    Case(
        "v1 text of the local model",
        "/v1/completions",
        TINY_TEXT,
        """
        gateway SERVER POST /v1/completions http=200
          gateway CLIENT POST /v1/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/completions http=200
              llm-proxy CLIENT text_completion tiny attempts=1 provider=o11y-local tokens=2→8 cost=0 price=free finish=length
                llm-proxy CLIENT POST /v1/completions http=200 to=inference-svc provider=o11y-local attempt=1 tokens=2→8 cost=0
                  inference-svc SERVER POST /v1/completions http=200
                    inference-svc INTERNAL text_completion tiny provider=o11y-local first_token=yes tokens=2→8 finish=length
        """,
        local=True,
    ),
    Case(
        "v1 text of the local model, streamed",
        "/v1/completions",
        TINY_TEXT | STREAM,
        """
        gateway SERVER POST /v1/completions http=200
          gateway CLIENT POST /v1/completions http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/completions http=200
              llm-proxy CLIENT text_completion tiny attempts=1 provider=o11y-local first_chunk=yes tokens=2→8 cost=0 price=free finish=length
                llm-proxy CLIENT POST /v1/completions http=200 to=inference-svc provider=o11y-local attempt=1 tokens=2→8 cost=0
                  inference-svc SERVER POST /v1/completions http=200
                    inference-svc INTERNAL text_completion tiny provider=o11y-local first_token=yes tokens=2→8 finish=length
        """,
        local=True,
    ),
    # /v1/embeddings
    Case(
        "v1 embeddings",
        "/v1/embeddings",
        V1_EMBED,
        """
        gateway SERVER POST /v1/embeddings http=200
          gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings http=200
              llm-proxy CLIENT embeddings text-embedding-3-small attempts=1 provider=first tokens=2 cost=0.00000004 price=price_list
                llm-proxy CLIENT POST /v1/embeddings http=200 to=first provider=first attempt=1 tokens=2 cost=0.00000004
        """,
    ),
    Case(
        "v1 embeddings that are wrong",
        "/v1/embeddings",
        V1_EMBED,
        """
        gateway SERVER POST /v1/embeddings http=400
          gateway CLIENT POST /v1/embeddings ERROR http=400 error=400 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings http=400
              llm-proxy CLIENT embeddings text-embedding-3-small ERROR error=400 attempts=1 provider=first
                llm-proxy CLIENT POST /v1/embeddings ERROR http=400 error=400 to=first provider=first attempt=1
        """,
        first=(WRONG,),
    ),
    Case(
        "v1 embeddings no provider can make",
        "/v1/embeddings",
        V1_EMBED,
        """
        gateway SERVER POST /v1/embeddings ERROR http=502 error=502
          gateway CLIENT POST /v1/embeddings ERROR http=502 error=502 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings ERROR http=502 error=502
              llm-proxy CLIENT embeddings text-embedding-3-small ERROR error=500 attempts=3 provider=second
                llm-proxy CLIENT POST /v1/embeddings ERROR http=500 error=500 to=first provider=first attempt=1
                llm-proxy CLIENT POST /v1/embeddings ERROR http=500 error=500 to=first resend=1 provider=first attempt=2
                llm-proxy CLIENT POST /v1/embeddings ERROR http=500 error=500 to=second provider=second attempt=3
        """,
        first=(FAILS,) * 2,
        second=(FAILS,),
    ),
    Case(
        "v1 embeddings that are tried again",
        "/v1/embeddings",
        V1_EMBED,
        """
        gateway SERVER POST /v1/embeddings http=200
          gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings http=200
              llm-proxy CLIENT embeddings text-embedding-3-small attempts=2 provider=first tokens=2 cost=0.00000004 price=price_list
                llm-proxy CLIENT POST /v1/embeddings ERROR http=429 error=429 to=first provider=first attempt=1
                llm-proxy CLIENT POST /v1/embeddings http=200 to=first resend=1 provider=first attempt=2 tokens=2 cost=0.00000004
        """,
        first=(BUSY,),
    ),
    Case(
        "v1 embeddings of the second provider",
        "/v1/embeddings",
        V1_EMBED,
        """
        gateway SERVER POST /v1/embeddings http=200
          gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings http=200
              llm-proxy CLIENT embeddings text-embedding-3-small attempts=3 provider=second tokens=2 cost=0.00000004 price=price_list
                llm-proxy CLIENT POST /v1/embeddings ERROR http=500 error=500 to=first provider=first attempt=1
                llm-proxy CLIENT POST /v1/embeddings ERROR http=500 error=500 to=first resend=1 provider=first attempt=2
                llm-proxy CLIENT POST /v1/embeddings http=200 to=second provider=second attempt=3 tokens=2 cost=0.00000004
        """,
        first=(FAILS,) * 2,
    ),
    Case(
        "v1 embeddings whose caller leaves",
        "/v1/embeddings",
        V1_EMBED,
        """
        gateway SERVER POST /v1/embeddings error=client_disconnected
          gateway CLIENT POST /v1/embeddings ERROR error=cancelled to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings error=client_disconnected
              llm-proxy CLIENT embeddings text-embedding-3-small ERROR error=cancelled attempts=1 provider=first tokens=~4 cost=0.00000008 price=price_list
                llm-proxy CLIENT POST /v1/embeddings ERROR error=cancelled to=first provider=first attempt=1 tokens=~4 cost=0.00000008
        """,
        first=(SILENT,),
        leaves=0,
    ),
    Case(
        "v1 embeddings of the local model",
        "/v1/embeddings",
        TINY_EMBED,
        """
        gateway SERVER POST /v1/embeddings http=200
          gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings http=200
              llm-proxy CLIENT embeddings all-MiniLM-L6-v2 attempts=1 provider=o11y-local tokens=6 cost=0 price=free
                llm-proxy CLIENT POST /v1/embeddings http=200 to=inference-svc provider=o11y-local attempt=1 tokens=6 cost=0
                  inference-svc SERVER POST /v1/embeddings http=200
                    inference-svc CLIENT embeddings all-MiniLM-L6-v2 provider=o11y-local tokens=6 documents=2
        """,
        local=True,
    ),
    # /embed
    Case(
        "texts embedded and stored",
        "/embed",
        EMBED,
        """
        gateway SERVER POST /embed http=200
          gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings http=200
              llm-proxy CLIENT embeddings text-embedding-3-small attempts=1 provider=first tokens=8 cost=0.00000016 price=price_list
                llm-proxy CLIENT POST /v1/embeddings http=200 to=first provider=first attempt=1 tokens=8 cost=0.00000016
          gateway CLIENT POST /documents http=200 to=vector-svc
            vector-svc SERVER POST /documents http=200
              vector-svc CLIENT upsert documents documents=2
        """,
    ),
    Case(
        "texts embedded",
        "/embed",
        {"texts": KEPT, "store_in_vector_db": False},
        """
        gateway SERVER POST /embed http=200
          gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings http=200
              llm-proxy CLIENT embeddings text-embedding-3-small attempts=1 provider=first tokens=8 cost=0.00000016 price=price_list
                llm-proxy CLIENT POST /v1/embeddings http=200 to=first provider=first attempt=1 tokens=8 cost=0.00000016
        """,
    ),
    Case(
        "texts no provider can embed",
        "/embed",
        EMBED,
        """
        gateway SERVER POST /embed ERROR http=502 error=502
          gateway CLIENT POST /v1/embeddings ERROR http=502 error=502 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings ERROR http=502 error=502
              llm-proxy CLIENT embeddings text-embedding-3-small ERROR error=500 attempts=3 provider=second
                llm-proxy CLIENT POST /v1/embeddings ERROR http=500 error=500 to=first provider=first attempt=1
                llm-proxy CLIENT POST /v1/embeddings ERROR http=500 error=500 to=first resend=1 provider=first attempt=2
                llm-proxy CLIENT POST /v1/embeddings ERROR http=500 error=500 to=second provider=second attempt=3
        """,
        first=(FAILS,) * 2,
        second=(FAILS,),
    ),
    Case(
        "texts embedded on the second try",
        "/embed",
        EMBED,
        """
        gateway SERVER POST /embed http=200
          gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings http=200
              llm-proxy CLIENT embeddings text-embedding-3-small attempts=2 provider=first tokens=8 cost=0.00000016 price=price_list
                llm-proxy CLIENT POST /v1/embeddings ERROR http=429 error=429 to=first provider=first attempt=1
                llm-proxy CLIENT POST /v1/embeddings http=200 to=first resend=1 provider=first attempt=2 tokens=8 cost=0.00000016
          gateway CLIENT POST /documents http=200 to=vector-svc
            vector-svc SERVER POST /documents http=200
              vector-svc CLIENT upsert documents documents=2
        """,
        first=(BUSY,),
    ),
    Case(
        "texts of a model the collection is not of",
        "/embed",
        {**EMBED, "model": "text-embedding-3-large"},
        """
        gateway SERVER POST /embed http=409
          gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings http=200
              llm-proxy CLIENT embeddings text-embedding-3-large attempts=1 provider=first tokens=8 cost=0.00000104 price=price_list
                llm-proxy CLIENT POST /v1/embeddings http=200 to=first provider=first attempt=1 tokens=8 cost=0.00000104
          gateway CLIENT POST /documents ERROR http=409 error=409 to=vector-svc
            vector-svc SERVER POST /documents http=409
              vector-svc CLIENT upsert documents ERROR error=embedding_model_mismatch documents=2
        """,
    ),
    # /search
    Case(
        "a search",
        "/search",
        SEARCH,
        """
        gateway SERVER POST /search http=200
          gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings http=200
              llm-proxy CLIENT embeddings text-embedding-3-small attempts=1 provider=first tokens=4 cost=0.00000008 price=price_list
                llm-proxy CLIENT POST /v1/embeddings http=200 to=first provider=first attempt=1 tokens=4 cost=0.00000008
          gateway CLIENT POST /search http=200 to=vector-svc
            vector-svc SERVER POST /search http=200
              vector-svc CLIENT retrieval documents provider=chroma top_k=3 found=2
        """,
    ),
    Case(
        "a search of the second provider",
        "/search",
        SEARCH,
        """
        gateway SERVER POST /search http=200
          gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings http=200
              llm-proxy CLIENT embeddings text-embedding-3-small attempts=2 provider=second tokens=~9 cost=0.00000018 price=price_list
                llm-proxy CLIENT POST /v1/embeddings ERROR error=timeout to=first provider=first attempt=1 tokens=~5 cost=0.0000001
                llm-proxy CLIENT POST /v1/embeddings http=200 to=second provider=second attempt=2 tokens=4 cost=0.00000008
          gateway CLIENT POST /search http=200 to=vector-svc
            vector-svc SERVER POST /search http=200
              vector-svc CLIENT retrieval documents provider=chroma top_k=3 found=2
        """,
        first=(SILENT,),
    ),
    Case(
        "a search whose query has no embedding",
        "/search",
        SEARCH,
        """
        gateway SERVER POST /search ERROR http=502 error=502
          gateway CLIENT POST /v1/embeddings ERROR http=502 error=502 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings ERROR http=502 error=502
              llm-proxy CLIENT embeddings text-embedding-3-small ERROR error=500 attempts=3 provider=second
                llm-proxy CLIENT POST /v1/embeddings ERROR http=500 error=500 to=first provider=first attempt=1
                llm-proxy CLIENT POST /v1/embeddings ERROR http=500 error=500 to=first resend=1 provider=first attempt=2
                llm-proxy CLIENT POST /v1/embeddings ERROR http=500 error=500 to=second provider=second attempt=3
        """,
        first=(FAILS,) * 2,
        second=(FAILS,),
    ),
    Case(
        "a search with a filter that is wrong",
        "/search",
        {**SEARCH, "filter_metadata": {"kind": {"$no": 1}}},
        """
        gateway SERVER POST /search http=422
          gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings http=200
              llm-proxy CLIENT embeddings text-embedding-3-small attempts=1 provider=first tokens=4 cost=0.00000008 price=price_list
                llm-proxy CLIENT POST /v1/embeddings http=200 to=first provider=first attempt=1 tokens=4 cost=0.00000008
          gateway CLIENT POST /search ERROR http=422 error=422 to=vector-svc
            vector-svc SERVER POST /search http=422
              vector-svc CLIENT retrieval documents ERROR error=invalid_input provider=chroma top_k=3
        """,
    ),
    Case(
        "a search without a vector service",
        "/search",
        SEARCH,
        """
        gateway SERVER POST /search ERROR http=503 error=503
          gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings http=200
              llm-proxy CLIENT embeddings all-MiniLM-L6-v2 attempts=1 provider=o11y-local tokens=6 cost=0 price=free
                llm-proxy CLIENT POST /v1/embeddings http=200 to=inference-svc provider=o11y-local attempt=1 tokens=6 cost=0
                  inference-svc SERVER POST /v1/embeddings http=200
                    inference-svc CLIENT embeddings all-MiniLM-L6-v2 provider=o11y-local tokens=6 documents=1
          gateway CLIENT POST /search ERROR error=connect_error to=vector-svc
          gateway CLIENT POST /search ERROR error=connect_error to=vector-svc resend=1
          gateway CLIENT POST /search ERROR error=connect_error to=vector-svc resend=2
        """,
        local=True,
    ),
    Case(
        "a search whose caller leaves",
        "/search",
        SEARCH,
        """
        gateway SERVER POST /search error=client_disconnected
          gateway CLIENT POST /v1/embeddings ERROR error=cancelled to=llm-proxy
            llm-proxy SERVER POST /v1/embeddings error=client_disconnected
              llm-proxy CLIENT embeddings text-embedding-3-small ERROR error=cancelled attempts=1 provider=first tokens=~5 cost=0.0000001 price=price_list
                llm-proxy CLIENT POST /v1/embeddings ERROR error=cancelled to=first provider=first attempt=1 tokens=~5 cost=0.0000001
        """,
        first=(SILENT,),
        leaves=0,
    ),
    # /local-inference
    Case(
        "a local generation",
        "/local-inference",
        LOCAL,
        """
        gateway SERVER POST /local-inference http=200
          gateway CLIENT POST /local-inference http=200 to=inference-svc
            inference-svc SERVER POST /local-inference http=200
              inference-svc INTERNAL text_completion tiny provider=o11y-local first_token=yes tokens=3→8 finish=length
        """,
    ),
    Case(
        "a local generation, streamed",
        "/local-inference",
        LOCAL | STREAM,
        """
        gateway SERVER POST /local-inference http=200
          gateway CLIENT POST /local-inference http=200 to=inference-svc
            inference-svc SERVER POST /local-inference http=200
              inference-svc INTERNAL text_completion tiny provider=o11y-local first_token=yes tokens=3→8 finish=length
        """,
    ),
    Case(
        "a local generation left in its middle",
        "/local-inference",
        LONG,
        """
        gateway SERVER POST /local-inference http=200 error=client_disconnected
          gateway CLIENT POST /local-inference ERROR http=200 error=cancelled to=inference-svc
            inference-svc SERVER POST /local-inference http=200 error=client_disconnected
              inference-svc INTERNAL text_completion tiny ERROR error=cancelled provider=o11y-local tokens=* finish=error
        """,
        leaves=2,
    ),
    Case(
        "a local generation there is no place for",
        "/local-inference",
        LOCAL | {"num_sequences": 5},
        """
        gateway SERVER POST /local-inference http=429
          gateway CLIENT POST /local-inference ERROR http=429 error=429 to=inference-svc
            inference-svc SERVER POST /local-inference http=429
              inference-svc INTERNAL text_completion tiny ERROR error=busy provider=o11y-local
        """,
    ),
    Case(
        "a streamed one there is no place for",
        "/local-inference",
        LOCAL | STREAM | {"num_sequences": 5},
        """
        gateway SERVER POST /local-inference http=429
          gateway CLIENT POST /local-inference ERROR http=429 error=429 to=inference-svc
            inference-svc SERVER POST /local-inference http=429
              inference-svc INTERNAL text_completion tiny ERROR error=busy provider=o11y-local
        """,
    ),
    Case(
        "a local generation of nothing",
        "/local-inference",
        LOCAL | {"prompt": " "},
        """
        gateway SERVER POST /local-inference http=422
          gateway CLIENT POST /local-inference ERROR http=422 error=422 to=inference-svc
            inference-svc SERVER POST /local-inference http=422
              inference-svc INTERNAL text_completion tiny ERROR error=empty_prompt provider=o11y-local
        """,
    ),
    # /full-pipeline
    Case(
        "a pipeline call",
        "/full-pipeline",
        PIPELINE | {"store_results": True},
        """
        gateway SERVER POST /full-pipeline http=200
          gateway INTERNAL invoke_workflow full-pipeline cost=0.00000973 steps=6
            gateway CLIENT POST /local-inference http=200 to=inference-svc stage=local_inference
              inference-svc SERVER POST /local-inference http=200
                inference-svc INTERNAL text_completion tiny provider=o11y-local first_token=yes tokens=* finish=*
            gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy stage=embed_query
              llm-proxy SERVER POST /v1/embeddings http=200
                llm-proxy CLIENT embeddings text-embedding-3-small attempts=1 provider=first tokens=2 cost=0.00000004 price=price_list
                  llm-proxy CLIENT POST /v1/embeddings http=200 to=first provider=first attempt=1 tokens=2 cost=0.00000004
            gateway CLIENT POST /search http=200 to=vector-svc stage=search
              vector-svc SERVER POST /search http=200
                vector-svc CLIENT retrieval documents provider=chroma top_k=3 found=2
            gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy stage=chat
              llm-proxy SERVER POST /v1/chat/completions http=200
                llm-proxy CLIENT chat gpt-4o-mini attempts=1 provider=first tokens=31→8 cost=0.00000945 price=price_list finish=stop
                  llm-proxy CLIENT POST /v1/chat/completions http=200 to=first provider=first attempt=1 tokens=31→8 cost=0.00000945
            gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy stage=embed_answer
              llm-proxy SERVER POST /v1/embeddings http=200
                llm-proxy CLIENT embeddings text-embedding-3-small attempts=1 provider=first tokens=12 cost=0.00000024 price=price_list
                  llm-proxy CLIENT POST /v1/embeddings http=200 to=first provider=first attempt=1 tokens=12 cost=0.00000024
            gateway CLIENT POST /documents http=200 to=vector-svc stage=store
              vector-svc SERVER POST /documents http=200
                vector-svc CLIENT upsert documents documents=2
        """,
    ),
    Case(
        "a pipeline call that stores nothing",
        "/full-pipeline",
        PIPELINE | {"store_results": False},
        """
        gateway SERVER POST /full-pipeline http=200
          gateway INTERNAL invoke_workflow full-pipeline cost=0.00000949 steps=4
            gateway CLIENT POST /local-inference http=200 to=inference-svc stage=local_inference
              inference-svc SERVER POST /local-inference http=200
                inference-svc INTERNAL text_completion tiny provider=o11y-local first_token=yes tokens=* finish=*
            gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy stage=embed_query
              llm-proxy SERVER POST /v1/embeddings http=200
                llm-proxy CLIENT embeddings text-embedding-3-small attempts=1 provider=first tokens=2 cost=0.00000004 price=price_list
                  llm-proxy CLIENT POST /v1/embeddings http=200 to=first provider=first attempt=1 tokens=2 cost=0.00000004
            gateway CLIENT POST /search http=200 to=vector-svc stage=search
              vector-svc SERVER POST /search http=200
                vector-svc CLIENT retrieval documents provider=chroma top_k=3 found=2
            gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy stage=chat
              llm-proxy SERVER POST /v1/chat/completions http=200
                llm-proxy CLIENT chat gpt-4o-mini attempts=1 provider=first tokens=31→8 cost=0.00000945 price=price_list finish=stop
                  llm-proxy CLIENT POST /v1/chat/completions http=200 to=first provider=first attempt=1 tokens=31→8 cost=0.00000945
        """,
    ),
    Case(
        "a pipeline call whose chat fails",
        "/full-pipeline",
        PIPELINE | {"store_results": False},
        """
        gateway SERVER POST /full-pipeline http=200
          gateway INTERNAL invoke_workflow full-pipeline cost=0.00000004 steps=3
            gateway CLIENT POST /local-inference http=200 to=inference-svc stage=local_inference
              inference-svc SERVER POST /local-inference http=200
                inference-svc INTERNAL text_completion tiny provider=o11y-local first_token=yes tokens=* finish=*
            gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy stage=embed_query
              llm-proxy SERVER POST /v1/embeddings http=200
                llm-proxy CLIENT embeddings text-embedding-3-small attempts=1 provider=first tokens=2 cost=0.00000004 price=price_list
                  llm-proxy CLIENT POST /v1/embeddings http=200 to=first provider=first attempt=1 tokens=2 cost=0.00000004
            gateway CLIENT POST /search http=200 to=vector-svc stage=search
              vector-svc SERVER POST /search http=200
                vector-svc CLIENT retrieval documents provider=chroma top_k=3 found=2
            gateway CLIENT POST /v1/chat/completions ERROR http=502 error=502 to=llm-proxy stage=chat
              llm-proxy SERVER POST /v1/chat/completions ERROR http=502 error=502
                llm-proxy CLIENT chat gpt-4o-mini ERROR error=500 attempts=3 provider=second
                  llm-proxy CLIENT POST /v1/chat/completions ERROR http=500 error=500 to=first provider=first attempt=1
                  llm-proxy CLIENT POST /v1/chat/completions ERROR http=500 error=500 to=first resend=1 provider=first attempt=2
                  llm-proxy CLIENT POST /v1/chat/completions ERROR http=500 error=500 to=second provider=second attempt=3
        """,
        first=(Step(), FAILS, FAILS),
        second=(FAILS,),
    ),
    Case(
        "a pipeline call without a vector service",
        "/full-pipeline",
        PIPELINE | {"store_results": True},
        """
        gateway SERVER POST /full-pipeline http=200
          gateway INTERNAL invoke_workflow full-pipeline cost=0 steps=4
            gateway CLIENT POST /local-inference http=200 to=inference-svc stage=local_inference
              inference-svc SERVER POST /local-inference http=200
                inference-svc INTERNAL text_completion tiny provider=o11y-local first_token=yes tokens=* finish=*
            gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy stage=embed_query
              llm-proxy SERVER POST /v1/embeddings http=200
                llm-proxy CLIENT embeddings all-MiniLM-L6-v2 attempts=1 provider=o11y-local tokens=8 cost=0 price=free
                  llm-proxy CLIENT POST /v1/embeddings http=200 to=inference-svc provider=o11y-local attempt=1 tokens=8 cost=0
                    inference-svc SERVER POST /v1/embeddings http=200
                      inference-svc CLIENT embeddings all-MiniLM-L6-v2 provider=o11y-local tokens=8 documents=1
            gateway CLIENT POST /search ERROR error=connect_error to=vector-svc stage=search
            gateway CLIENT POST /search ERROR error=connect_error to=vector-svc resend=1 stage=search
            gateway CLIENT POST /search ERROR error=connect_error to=vector-svc resend=2 stage=search
            gateway CLIENT POST /v1/chat/completions http=200 to=llm-proxy stage=chat
              llm-proxy SERVER POST /v1/chat/completions http=200
                llm-proxy CLIENT chat tiny attempts=1 provider=o11y-local tokens=* cost=0 price=free finish=*
                  llm-proxy CLIENT POST /v1/chat/completions http=200 to=inference-svc provider=o11y-local attempt=1 tokens=* cost=0
                    inference-svc SERVER POST /v1/chat/completions http=200
                      inference-svc INTERNAL chat tiny provider=o11y-local first_token=yes tokens=* finish=*
            gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy stage=embed_answer
              llm-proxy SERVER POST /v1/embeddings http=200
                llm-proxy CLIENT embeddings all-MiniLM-L6-v2 attempts=1 provider=o11y-local tokens=* cost=0 price=free
                  llm-proxy CLIENT POST /v1/embeddings http=200 to=inference-svc provider=o11y-local attempt=1 tokens=* cost=0
                    inference-svc SERVER POST /v1/embeddings http=200
                      inference-svc CLIENT embeddings all-MiniLM-L6-v2 provider=o11y-local tokens=* documents=1
            gateway CLIENT POST /documents ERROR error=connect_error to=vector-svc stage=store
            gateway CLIENT POST /documents ERROR error=connect_error to=vector-svc resend=1 stage=store
            gateway CLIENT POST /documents ERROR error=connect_error to=vector-svc resend=2 stage=store
        """,
        local=True,
    ),
    Case(
        "a pipeline call whose caller leaves",
        "/full-pipeline",
        ENDLESS,
        """
        gateway SERVER POST /full-pipeline error=client_disconnected
          gateway INTERNAL invoke_workflow full-pipeline ERROR error=cancelled
            gateway CLIENT POST /local-inference ERROR error=cancelled to=inference-svc stage=local_inference
              inference-svc SERVER POST /local-inference error=client_disconnected
                inference-svc INTERNAL text_completion tiny ERROR error=cancelled provider=o11y-local tokens=* finish=error
            gateway CLIENT POST /v1/embeddings http=200 to=llm-proxy stage=embed_query
              llm-proxy SERVER POST /v1/embeddings http=200
                llm-proxy CLIENT embeddings text-embedding-3-small attempts=1 provider=first tokens=2 cost=0.00000004 price=price_list
                  llm-proxy CLIENT POST /v1/embeddings http=200 to=first provider=first attempt=1 tokens=2 cost=0.00000004
            gateway CLIENT POST /search http=200 to=vector-svc stage=search
              vector-svc SERVER POST /search http=200
                vector-svc CLIENT retrieval documents provider=chroma top_k=3 found=2
            gateway CLIENT POST /v1/chat/completions ERROR error=cancelled to=llm-proxy stage=chat
              llm-proxy SERVER POST /v1/chat/completions error=client_disconnected
                llm-proxy CLIENT chat gpt-4o-mini ERROR error=cancelled attempts=1 provider=first tokens=* cost=* price=price_list
                  llm-proxy CLIENT POST /v1/chat/completions ERROR error=cancelled to=first provider=first attempt=1 tokens=* cost=*
        """,
        first=(Step(), SILENT),
        leaves=0,
    ),
]
