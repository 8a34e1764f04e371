"""Who may answer a call, in which order, and what each calls the model."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from opentelemetry import context

from accounting.caller import with_key
from llm_proxy.requests import read
from llm_proxy.settings import LOCAL
from o11y.openai.operations import CHAT, EMBEDDINGS, Operation
from o11y.web.problems import Problem
from tests.support.upstream import Caller

Calling = Callable[..., Caller]
AWAY = httpx2.ConnectError("refused")
LOCALLY: Mapping[str, Any] = {"name": LOCAL, "base_url": None}


async def routes(caller: Caller, model: str | None, operation: Operation = CHAT) -> Any:
    field = '"messages"' if operation is CHAT else '"input"'
    named = f'"model": "{model}", ' if model else ""
    request = read(operation, f'{{{named}{field}: ["a"]}}'.encode())
    found = await caller.calls.routing.candidates(request)
    return [(provider.name, called) for provider, called in found]


@pytest.mark.parametrize(
    ("providers", "asked", "found"),
    [
        ([{}, {}], "m", [("a", "m"), ("b", "m")]),
        ([{"models": {"m": "m-a"}}, {"models": {"m": "m-b"}}], "m", [("a", "m-a"), ("b", "m-b")]),
        ([{}, {"models": {"*": "any"}}], "m", [("a", "m"), ("b", "any")]),
        ([{"models": {"m": "one", "*": "any"}}], "m", [("a", "one")]),
        ([{"models": {"m": "one", "*": "any"}}], "n", [("a", "any")]),
        ([{"chat_model": "c"}, {"chat_model": "d"}], None, [("a", "c"), ("b", "d")]),
        ([{"chat_model": "c", "models": {"*": "x"}}], None, [("a", "c")]),
        ([{}, {"chat_model": "d"}], None, [("b", "d")]),
        ([{"chat_model": "c"}, LOCALLY], "gpt", [("a", "gpt"), (LOCAL, "tiny-chat")]),
        (
            [{}, {**LOCALLY, "models": {"gpt": "mine"}}],
            "gpt",
            [("a", "gpt"), (LOCAL, "mine")],
        ),
        ([{}, {**LOCALLY, "chat_model": "mine"}], "gpt", [("a", "gpt"), (LOCAL, "mine")]),
        ([LOCALLY], "gpt", [(LOCAL, "gpt")]),
        ([LOCALLY], None, [(LOCAL, "tiny-chat")]),
    ],
)
async def test_a_chat_goes_to_each_in_turn_by_its_own_name_for_the_model(
    providers: list[dict[str, Any]],
    asked: str | None,
    found: list[tuple[str, str]],
    calling: Calling,
) -> None:
    assert await routes(calling(*providers), asked) == found


E = "text-embedding-3-small"


@pytest.mark.parametrize(
    ("providers", "asked", "found"),
    [
        ([{}, {}], E, [("a", E)]),
        ([{}, {"embedding_model": "other"}, LOCALLY], E, [("a", E)]),
        ([{}, {"models": {"*": "any"}}], E, [("a", E)]),
        ([{"models": {"*": "any"}}, {}], E, [("a", E)]),
        ([{"models": {"*": "any"}}, {}], "e", [("a", "e")]),
        (
            [{"embedding_model": E}, {"models": {E: "same"}}, {}],
            E,
            [("a", E), ("b", "same")],
        ),
        ([{"embedding_model": E}, {"embedding_model": E}], E, [("a", E), ("b", E)]),
        ([{"embedding_model": E}, LOCALLY], None, [("a", E)]),
        ([{}, {"embedding_model": E}, {"embedding_model": "other"}], None, [("b", E)]),
        ([{}, LOCALLY], None, [(LOCAL, "tiny-embedding")]),
        ([{"embedding_model": E}, LOCALLY], "tiny-embedding", [(LOCAL, "tiny-embedding")]),
    ],
)
async def test_an_embedding_never_goes_to_another_model(
    providers: list[dict[str, Any]],
    asked: str | None,
    found: list[tuple[str, str]],
    calling: Calling,
) -> None:
    assert await routes(calling(*providers), asked, EMBEDDINGS) == found


@pytest.mark.parametrize("operation", [CHAT, EMBEDDINGS])
async def test_without_any_default_model_the_caller_must_name_one(
    operation: Operation, calling: Calling
) -> None:
    with pytest.raises(Problem) as raised:
        await routes(calling({}, {}), None, operation)
    assert (raised.value.status, raised.value.errors[0]["field"]) == (422, "model")


async def test_the_local_service_that_is_away_is_left_out_while_there_is_another(
    calling: Calling,
) -> None:
    caller = calling({}, LOCALLY)
    caller.upstream.answers["/models"] = AWAY
    assert await routes(caller, "gpt") == [("a", "gpt")]


async def test_the_only_provider_that_is_away_is_a_problem(calling: Calling) -> None:
    caller = calling(LOCALLY)
    caller.upstream.answers["/models"] = [AWAY, AWAY, None]  # type: ignore[list-item]
    for _ in range(2):
        with pytest.raises(Problem) as raised:
            await routes(caller, None)
        assert raised.value.status == 503
    assert await routes(caller, None) == [(LOCAL, "tiny-chat")]


async def test_a_fallback_that_does_not_answer_is_not_waited_for_by_every_call(
    calling: Calling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hang: each call would wait for its time-out before it went to those that are well."""
    now = [1000.0]
    monkeypatch.setattr("llm_proxy.routing.time.monotonic", lambda: now[0])
    caller = calling({}, LOCALLY)
    caller.upstream.answers["/models"] = AWAY
    for _ in range(3):
        await routes(caller, "gpt")
    assert len(caller.upstream.requests) == 1
    now[0] += 60
    del caller.upstream.answers["/models"]
    assert await routes(caller, "gpt") == [("a", "gpt"), (LOCAL, "tiny-chat")]


@contextmanager
def keyed(models: list[str] | None) -> Iterator[None]:
    """Do what follows for a caller whose key may use these models."""
    token = context.attach(with_key(context.get_current(), "acme", "0123456789ab", models))
    yield
    context.detach(token)


TWO: tuple[Mapping[str, Any], ...] = ({"chat_model": "big"}, {"chat_model": "small"})


@pytest.mark.parametrize(
    ("allowed", "asked", "found"),
    [
        (None, "gpt", [("a", "gpt"), ("b", "gpt")]),
        (["gpt"], "gpt", [("a", "gpt"), ("b", "gpt")]),
        (["big"], None, [("a", "big")]),
        (["small"], None, [("b", "small")]),
        (["big", "small"], None, [("a", "big"), ("b", "small")]),
    ],
)
async def test_a_key_uses_its_models_alone(
    allowed: list[str] | None, asked: str | None, found: Any, calling: Calling
) -> None:
    with keyed(allowed):
        assert await routes(calling(*TWO), asked) == found


@pytest.mark.parametrize(
    ("allowed", "asked"), [(["big"], "gpt"), ([], "gpt"), ([], None), (["nobody's"], None)]
)
async def test_a_model_that_a_key_may_not_use_is_403(
    allowed: list[str], asked: str | None, calling: Calling
) -> None:
    with keyed(allowed), pytest.raises(Problem) as refused:
        await routes(calling(*TWO), asked)
    assert (refused.value.status, refused.value.code) == (403, "model_not_allowed")
    assert refused.value.errors[0]["field"] == "model"


async def test_a_model_under_another_name_is_one_that_a_key_may_use(calling: Calling) -> None:
    caller = calling({"models": {"fast": "gpt-4o-mini"}})
    for allowed in (["fast"], ["gpt-4o-mini"]):
        with keyed(allowed):
            assert await routes(caller, "fast") == [("a", "gpt-4o-mini")]
