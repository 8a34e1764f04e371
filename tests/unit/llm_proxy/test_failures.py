"""What an error of a provider means, and what the caller is told when nobody answered."""

from collections.abc import Mapping

import httpx2
import pytest

from llm_proxy.failures import (
    BUSY,
    NOT_READABLE,
    OPEN,
    AttemptFailed,
    CallRejected,
    classify_response,
    client_error,
)
from o11y.telemetry import schema
from o11y.web.problems import Problem

WORDS = b'{"error": {"message": "no"}}'
WHO = "the LLM provider at a.test:80"


def heard(status: int, headers: Mapping[str, str] | None = None) -> Exception:
    return classify_response(WHO, status, WORDS, httpx2.Headers(dict(headers or {})))


@pytest.mark.parametrize("status", [400, 402, 404, 405, 413, 415, 422, 431, 451, 499])
def test_what_the_caller_did_wrong_is_told_in_the_providers_words(status: int) -> None:
    given = {"Content-Type": "application/json", "Retry-After": "7", "Set-Cookie": "a=b"}
    found = heard(status, given)
    assert isinstance(found, CallRejected)
    assert (found.status, found.content) == (status, WORDS)
    assert found.headers == {"content-type": "application/json", "retry-after": "7"}


@pytest.mark.parametrize(
    ("status", "again"),
    [
        *((status, True) for status in (408, 409, 429, 500, 502, 503, 504, 529, 599)),
        *((status, False) for status in (201, 204, 301, 302, 307, 308, 401, 403)),
    ],
)
def test_another_provider_may_make_good_what_this_one_could_not(status: int, again: bool) -> None:
    found = heard(status)
    assert isinstance(found, AttemptFailed)
    assert (found.error, found.status, found.again) == (str(status), status, again)
    assert WHO in found.detail
    assert str(status) in found.detail


@pytest.mark.parametrize(("told", "again"), [("false", False), ("true", True), ("odd", True)])
def test_a_provider_may_say_that_a_retry_is_in_vain(told: str, again: bool) -> None:
    found = heard(429, {"x-should-retry": told})
    assert isinstance(found, AttemptFailed)
    assert found.again is again


def failed(error: str, status: int = 0, **headers: str) -> AttemptFailed:
    return AttemptFailed(WHO, error, f"{WHO}: {error}", True, status or None, WORDS, headers)


@pytest.mark.parametrize("status", [408, 409, 429])
def test_a_busy_providers_own_words_are_the_answer(status: int) -> None:
    found = client_error([failed("500", 500), failed(str(status), status, **{"retry-after": "9"})])
    assert isinstance(found, CallRejected)
    assert (found.status, found.content) == (status, WORDS)
    assert found.headers == {"retry-after": "9"}


@pytest.mark.parametrize(
    ("last", "status", "code", "retry"),
    [
        (failed(schema.ERROR_TIMEOUT), 504, "out_of_time", None),
        (failed(schema.ERROR_CONNECT), 503, "unavailable", "1"),
        (failed(schema.ERROR_CONNECTION_LOST), 503, "unavailable", "1"),
        (failed(OPEN, 0, **{"retry-after": "9"}), 503, OPEN, "9"),
        (failed(BUSY, 0, **{"retry-after": "1"}), 429, BUSY, "1"),
        (failed(NOT_READABLE), 502, "bad_upstream", None),
        (failed("401", 401), 502, "provider_credentials", None),
        (failed("500", 500), 502, "provider_error", None),
        (failed("529", 529, **{"retry-after-ms": "2500"}), 502, "provider_error", "3"),
        (failed("503", 503, **{"retry-after": "7"}), 503, "provider_error", "7"),
        (failed("504", 504), 504, "provider_error", None),
        (failed("302", 302), 502, "provider_error", None),
    ],
    ids=lambda value: value.error if isinstance(value, AttemptFailed) else "",
)
def test_the_last_failure_decides_the_status(
    last: AttemptFailed, status: int, code: str, retry: str | None
) -> None:
    found = client_error([failed("429", 429), last])
    assert isinstance(found, Problem)
    assert (found.status, found.code, found.headers.get("Retry-After")) == (status, code, retry)


def test_the_words_tell_how_each_provider_failed_once() -> None:
    other = AttemptFailed("b", "500", "b answered 500", True, 500)
    found = client_error([failed("429", 429), failed("429", 429), other])
    assert str(found) == f"{WHO}: 429; b answered 500"


@pytest.mark.parametrize("wait", ["0.2", "0.5", "1.4", "2.6"])
def test_nobody_is_told_to_come_back_too_early(wait: str) -> None:
    found = client_error([failed("503", 503, **{"retry-after": wait})])
    assert isinstance(found, Problem)
    assert float(found.headers["Retry-After"]) >= float(wait)
    assert found.headers["Retry-After"].isdecimal()
