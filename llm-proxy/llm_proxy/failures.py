"""Why an attempt gave no answer, and what the caller is told when no attempt did."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx2

from llm_proxy.answers import ProviderFailed
from llm_proxy.backoff import asked_for
from llm_proxy.reading import NotReadable
from o11y.contracts import BUDGET_HEADER
from o11y.http.sse import TooLong
from o11y.http.transport import nothing_was_sent
from o11y.openai.headers import passed
from o11y.telemetry import schema
from o11y.telemetry.error_types import error_type
from o11y.web.problems import Problem, out_of_time, unavailable

CREDENTIALS = (401, 403)

_KEPT = ("content-type", BUDGET_HEADER.lower())
"""Headers of an error that are the caller's to read besides; the local service has budgets too."""

OPEN = "circuit_open"
BUSY = "busy"
NOT_READABLE = "invalid_answer"


class CallRejected(Exception):
    """The provider says that the call itself is wrong: its status and words are the caller's."""

    def __init__(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(f"the provider answered {status}")
        self.status = status
        self.content = content
        self.headers = error_headers(headers)
        self.provider: str | None = None
        """Name of the one who said so."""


@dataclass
class AttemptFailed(Exception):
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


def error_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of an error that are the caller's to read."""
    kept = {name: headers[name] for name in _KEPT if name in headers}
    return passed(headers) | kept


def classify_response(
    provider: str, status: int, content: bytes, headers: Mapping[str, str]
) -> Exception:
    """Classify the error of a response with an error status."""
    if status in CREDENTIALS:
        return AttemptFailed(
            provider,
            str(status),
            f"{provider} refused our credentials ({status}); check its API key",
            again=False,
            status=status,
        )
    if status in (408, 409, 429) or status >= 500 or status < 400:
        retriable = headers.get("x-should-retry")  # OpenAI's, where a retry would be in vain
        return AttemptFailed(
            provider,
            str(status),
            f"{provider} answered {status}",
            again=status >= 400 and retriable != "false",
            status=status,
            content=content,
            headers=error_headers(headers),
        )
    return CallRejected(status, content, headers)


def classify_error_body(
    provider: str, error: ProviderFailed, headers: Mapping[str, str]
) -> Exception:
    """Classify an error that came with a good status, in an answer's place."""
    if error.status is None:
        detail = f"{provider} reported an error in an answer's place"
        return AttemptFailed(provider, NOT_READABLE, detail, again=False)
    raw = {name.lower(): value for name, value in headers.items()}
    raw["content-type"] = "application/json"
    return classify_response(provider, error.status, error.content, raw)


def classify_exception(provider: str, error: BaseException) -> BaseException:
    """Classify what went wrong on the way; what is no failure of the provider's stays as it is."""
    match error:
        case _ if nothing_was_sent(error):
            detail, again = f"{provider} can't be reached", True
        case httpx2.NetworkError():
            detail, again = f"{provider} closed the connection", True
        case TimeoutError() | httpx2.TimeoutException():
            detail, again = f"{provider} did not answer in time", False
        case NotReadable() | httpx2.HTTPError() | TooLong():
            detail, again = f"{provider}'s answer can't be read: {error}", False
        case _:
            return error
    return AttemptFailed(provider, reason(error), detail, again=again)


def reason(error: BaseException) -> str:
    """The `error.type` of an attempt that ended so."""
    match error:
        case AttemptFailed():
            return error.error
        case CallRejected():
            return str(error.status)
        case NotReadable() | TooLong():
            return NOT_READABLE
    found = error_type(error)
    return NOT_READABLE if found == schema.ERROR_UNREADABLE else found


def refusal(provider: str, rejected: CallRejected) -> AttemptFailed:
    """The failure of a provider that was asked in another's place and rejects the call."""
    status = str(rejected.status)
    return AttemptFailed(provider, status, f"{provider} refuses the call ({status})", again=False)


def client_error(failures: Sequence[AttemptFailed]) -> Exception:
    """The error for the caller: how the last attempt failed, and in words how each provider did."""
    last = failures[-1]
    detail = "; ".join(dict.fromkeys(failure.detail for failure in failures))
    if last.status in (408, 409, 429):
        return CallRejected(429 if last.status == 429 else last.status, last.content, last.headers)
    match last.error:
        case schema.ERROR_TIMEOUT:
            return out_of_time(detail)
        case schema.ERROR_CONNECT | schema.ERROR_CONNECTION_LOST:
            return unavailable(detail)
        case _ if last.error == OPEN:
            return Problem(503, detail, code=OPEN, headers=_retry_after(last))
        case _ if last.error == BUSY:
            return Problem(429, detail, code=BUSY, headers=_retry_after(last))
        case _ if last.error == NOT_READABLE:
            return Problem(502, detail, code="bad_upstream")
    if last.status in CREDENTIALS:
        return Problem(502, detail, code="provider_credentials")
    status = last.status if last.status in (503, 504) else 502
    return Problem(status, detail, code="provider_error", headers=_retry_after(last))


def _retry_after(failure: AttemptFailed) -> dict[str, str] | None:
    wait = asked_for(failure.headers)
    return None if wait is None else {"Retry-After": str(math.ceil(wait))}
