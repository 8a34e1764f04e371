"""The wait before a call is tried again."""

import math
import random
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

FIRST_SECONDS = 0.25
MOST_SECONDS = 8.0
DAY_SECONDS = 86_400.0


def wait(retry: int, headers: Mapping[str, str] | None) -> float:
    """Seconds before the retry with this number, the first being 0.

    A provider that asks for a wait (`Retry-After`, RFC 9110 10.2.3, in seconds or as a date, or
    OpenAI's `retry-after-ms`) is obeyed. Otherwise the longest wait doubles each time, up to
    MOST_SECONDS, with full jitter.
    """
    wanted = asked_for(headers) if headers else None
    if wanted is not None:
        return wanted
    return random.uniform(0, min(MOST_SECONDS, FIRST_SECONDS * 2.0**retry))


def asked_for(headers: Mapping[str, str]) -> float | None:
    """Seconds the provider asks the caller to wait, a day at most; None when it doesn't say."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            seconds = _until(value)
        if 0 <= seconds < math.inf:
            return min(seconds, DAY_SECONDS)
    return None


def _until(date: str) -> float:
    """Seconds until an HTTP date, 0 when it has passed; -1 for an invalid one."""
    try:
        at = parsedate_to_datetime(date)
        if at.tzinfo is None:  # one of HTTP's forms names no zone: all mean UTC
            at = at.replace(tzinfo=UTC)
        return max(0.0, at.timestamp() - time.time())
    except (ValueError, OverflowError):
        return -1.0
