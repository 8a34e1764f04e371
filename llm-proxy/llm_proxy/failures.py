"""Why an attempt gave no answer, and what the caller is told when no attempt did."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llm_proxy.answers import ProviderFailed
from llm_proxy.backoff import asked_for
from o11y.openai.headers import passed
from o11y.telemetry import schema
from o11y.web.problems import Problem, out_of_time, unavailable

CREDENTIALS = (401, 403)

OPEN = "circuit_open"
BUSY = "busy"
NOT_READABLE = "invalid_answer"


class Refused(Exception):
    """The provider says that the call itself is wrong: its status and words are the caller's."""

    def __init__(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(f"the provider answered {status}")
        self.status = status
        self.content = content
        self.headers = kept(headers)
        self.provider: str | None = None
        """Name of the one who said so."""


@dataclass
class Failed(Exception):
    """An attempt that another provider, or another try, may make good."""

    provider: str
    """The provider's name in sentences."""
    error: str
    """`error.type`, and the reason on metrics."""
    detail: str
    again: bool
    """True if the same provider may be tried again."""
    status: int | None = None
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def kept(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of an error that are the caller's to read."""
    content_type = headers.get("content-type")
    return passed(headers) | ({"content-type": content_type} if content_type else {})


def judged(provider: str, status: int, content: bytes, headers: Mapping[str, str]) -> Exception:
    """Classify the error of a response with an error status."""
    if status in CREDENTIALS:
        return Failed(
            provider,
            str(status),
            f"{provider} refused our credentials ({status}); check its API key",
            again=False,
            status=status,
        )
    if status in (408, 409, 429) or status >= 500 or status < 400:
        told = headers.get("x-should-retry")  # OpenAI's, where a retry would be in vain
        return Failed(
            provider,
            str(status),
            f"{provider} answered {status}",
            again=status >= 400 and told != "false",
            status=status,
            content=content,
            headers=kept(headers),
        )
    return Refused(status, content, headers)


def reported(provider: str, error: ProviderFailed, headers: Mapping[str, str]) -> Exception:
    """Classify an error that came with a good status, in an answer's place."""
    if error.status is None:
        detail = f"{provider} reported an error in an answer's place"
        return Failed(provider, NOT_READABLE, detail, again=False)
    told = {name.lower(): value for name, value in headers.items()}
    told["content-type"] = "application/json"
    return judged(provider, error.status, error.content, told)


def verdict(failures: Sequence[Failed]) -> Exception:
    """The error for the caller: how the last attempt failed, and in words how each provider did."""
    last = failures[-1]
    said = "; ".join(dict.fromkeys(failure.detail for failure in failures))
    if last.status in (408, 409, 429):
        return Refused(429 if last.status == 429 else last.status, last.content, last.headers)
    match last.error:
        case schema.ERROR_TIMEOUT:
            return out_of_time(said)
        case schema.ERROR_CONNECT | schema.ERROR_CONNECTION_LOST:
            return unavailable(said)
        case _ if last.error == OPEN:
            return Problem(503, said, code=OPEN, headers=_retry_after(last))
        case _ if last.error == BUSY:
            return Problem(429, said, code=BUSY, headers=_retry_after(last))
        case _ if last.error == NOT_READABLE:
            return Problem(502, said, code="bad_upstream")
    if last.status in CREDENTIALS:
        return Problem(502, said, code="provider_credentials")
    status = last.status if last.status in (503, 504) else 502
    return Problem(status, said, code="provider_error", headers=_retry_after(last))


def _retry_after(failure: Failed) -> dict[str, str] | None:
    wait = asked_for(failure.headers)
    return None if wait is None else {"Retry-After": str(math.ceil(wait))}
