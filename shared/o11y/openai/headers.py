"""Headers of an LLM provider's answer that its caller reads: limits, waits, the id for support."""

from collections.abc import Mapping

_NAMES = frozenset({"retry-after", "retry-after-ms", "x-request-id", "x-should-retry"})
_PREFIXES = ("x-ratelimit-", "openai-")


def passed(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a response that are passed on, by lower-case name."""
    return {
        name: value
        for given, value in headers.items()
        if (name := given.lower()) in _NAMES or name.startswith(_PREFIXES)
    }
