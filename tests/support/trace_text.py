"""A trace as lines of text, one a span, for tests to compare.

    service KIND name [ERROR] key=value …

Children are indented and in the order they began. Only what is the same in every run is told:
no times, no addresses, no ids.
"""

from collections.abc import Callable, Iterator
from typing import Any

from o11y.telemetry import schema
from tests.support.tempo import Span, Trace

Attributes = dict[str, Any]


def _tokens(found: Attributes) -> str | None:
    keys = (
        *(schema.INPUT_TOKENS, schema.OUTPUT_TOKENS),
        *(schema.ATTEMPT_INPUT_TOKENS, schema.ATTEMPT_OUTPUT_TOKENS),
    )
    counts = [found[key] for key in keys if key in found]
    guessed = "~" if found.get(schema.USAGE_ESTIMATED) else ""
    return guessed + "→".join(str(count) for count in counts) if counts else None


def _dollars(found: Attributes) -> str | None:
    cost = found.get(schema.COST_USD, found.get(schema.ATTEMPT_COST_USD))
    return None if cost is None else f"{cost:.10f}".rstrip("0").rstrip(".")


def _finish(found: Attributes) -> str | None:
    reasons = found.get(schema.FINISH_REASONS)
    if reasons is None:
        return None
    return ",".join(value["stringValue"] for value in reasons["values"])


def _is_there(key: str) -> Callable[[Attributes], str | None]:
    """Of a time, which never is the same: only where the call was a good one."""
    return lambda found: "yes" if key in found and schema.ERROR_TYPE not in found else None


TOLD: dict[str, str | Callable[[Attributes], str | None]] = {
    "http": schema.HTTP_STATUS,
    "error": schema.ERROR_TYPE,
    "to": schema.PEER_SERVICE,
    "resend": schema.HTTP_RESEND_COUNT,
    "attempts": schema.LLM_ATTEMPTS,
    "provider": schema.PROVIDER,
    "attempt": schema.LLM_ATTEMPT,
    "first_chunk": _is_there(schema.FIRST_CHUNK_SECONDS),
    "first_token": _is_there(schema.FIRST_TOKEN_SECONDS),
    "tokens": _tokens,
    "cost": _dollars,
    "price": schema.COST_SOURCE,
    "finish": _finish,
    "stage": schema.PIPELINE_STAGE,
    "steps": schema.PIPELINE_STEPS,
    "top_k": "gen_ai.retrieval.top_k",
    "found": schema.RESULT_COUNT,
    "documents": schema.DOCUMENT_COUNT,
}
"""What a line tells of a span's attributes, by the word it has for each."""


def render(trace: Trace, caller: str) -> str:
    """`caller` is the span id that the root continues; what hangs elsewhere is marked."""
    known = {span.span_id for span in trace.spans}
    roots = [span for span in trace.spans if span.parent_id not in known]
    lines: list[str] = []
    for root in sorted(roots, key=lambda span: span.start):
        lost = "" if root.parent_id == caller else "(no parent) "
        lines += [lost + line for line in _lines(trace, root, 0)]
    return "\n".join(lines)


def masked(text: str, pattern: str) -> str:
    """The same with a `*` for each value that the pattern has a `*` for, line by line."""
    shown = []
    lines = pattern.splitlines()
    for at, line in enumerate(text.splitlines()):
        like = lines[at].split() if at < len(lines) else []
        vague = {word.removesuffix("*") for word in like if word.endswith("=*")}
        indent = line[: len(line) - len(line.lstrip())]
        words = (
            f"{key}=*" if (key := word.partition("=")[0]) and f"{key}=" in vague else word
            for word in line.split()
        )
        shown.append(indent + " ".join(words))
    return "\n".join(shown)


def _lines(trace: Trace, span: Span, depth: int) -> Iterator[str]:
    words = [span.service, span.kind, span.name, *(["ERROR"] if span.error else [])]
    for word, source in TOLD.items():
        found = span.attributes.get(source) if isinstance(source, str) else source(span.attributes)
        if found is not None:
            words.append(f"{word}={found}")
    yield "  " * depth + " ".join(words)
    children = [child for child in trace.spans if child.parent_id == span.span_id]
    for child in sorted(children, key=lambda child: child.start):
        yield from _lines(trace, child, depth + 1)
