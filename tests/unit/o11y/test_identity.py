"""Who a request is for, on every span and at the border."""

import pytest
from opentelemetry import trace
from starlette.types import Message, Receive, Scope, Send

from o11y.identity import DropBaggage, attributes, identified
from tests.unit.o11y import recorded as recording
from tests.unit.o11y.recorded import Recorded

ANN = {"user.id": "ann", "user_id": "ann"}
SESSION = {"session.id": "s1", "session_id": "s1", "gen_ai.conversation.id": "s1"}


@pytest.mark.parametrize(
    ("user", "session", "expected"),
    [
        (None, None, {}),
        ("ann", None, ANN),
        (None, "s1", SESSION),
        ("ann", "s1", {**ANN, **SESSION}),
    ],
)
def test_a_span_carries_user_and_session_under_every_name(
    user: str | None, session: str | None, expected: dict[str, str], recorded: Recorded
) -> None:
    with identified(user, session), recorded.telemetry.tracer.start_as_current_span("work"):
        assert attributes() == expected
    assert recording.attributes(recorded.span("work")) == expected


def test_the_span_already_open_is_told_as_well(recorded: Recorded) -> None:
    with recorded.telemetry.tracer.start_as_current_span("outer"), identified("ann", None):
        pass
    assert recording.attributes(recorded.span("outer")) == ANN


def test_spans_below_carry_it_too(recorded: Recorded) -> None:
    tracer = recorded.telemetry.tracer
    with (
        identified("ann", "s1"),
        tracer.start_as_current_span("outer"),
        tracer.start_as_current_span("inner"),
    ):
        pass
    assert recording.attributes(recorded.span("inner")) == {**ANN, **SESSION}


def test_it_ends_with_its_block(recorded: Recorded) -> None:
    with identified("ann", "s1"):
        pass
    with recorded.telemetry.tracer.start_as_current_span("later"):
        assert attributes() == {}
    assert recording.attributes(recorded.span("later")) == {}


def test_who_is_not_given_anew_stays() -> None:
    with identified("ann", "s1"), identified("bob", None):
        assert attributes() == {"user.id": "bob", "user_id": "bob", **SESSION}


def test_without_a_span_it_is_no_error() -> None:
    assert not trace.get_current_span().is_recording()
    with identified("ann", None):
        assert attributes() == ANN


async def heard(kind: str) -> Scope:
    """The scope that arrives behind the border, for one with baggage and another header."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    headers = [(b"baggage", b"user.id=mallory"), (b"traceparent", b"00-1-1-01")]
    await DropBaggage(app)({"type": kind, "headers": headers}, receive, send)
    return seen[0]


async def test_baggage_from_outside_ends_at_the_border_and_other_headers_do_not() -> None:
    assert (await heard("http"))["headers"] == [(b"traceparent", b"00-1-1-01")]


async def test_what_is_no_request_passes_the_border_untouched() -> None:
    assert len((await heard("lifespan"))["headers"]) == 2
