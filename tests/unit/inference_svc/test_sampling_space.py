"""Everything that the API accepts as sampling settings: the choice is right, and no value of a
setting costs more work than another.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from inference_svc.app import build
from inference_svc.openai_api import MAX_STOPS
from inference_svc.sampling import COLDEST, PIECE, Sampling, draw
from inference_svc.settings import Settings
from o11y.contracts import LocalInferenceRequest
from o11y.telemetry.signals import Telemetry

pytestmark = pytest.mark.slow

TEMPERATURES = st.floats(0, 2) | st.sampled_from([5e-324, 1e-300, 1e-38, COLDEST, 2.0])
TOP_PS = st.floats(0, 1, exclude_min=True) | st.sampled_from([5e-324, 1e-300, 1e-45, 1.0])
TOP_KS = st.integers(1, 2**31 - 1) | st.integers(1, 80)
SEEDS = st.integers(-(2**63), 2**63 - 1)
VOCABULARY = 70

SAMPLINGS = st.builds(
    Sampling,
    temperature=TEMPERATURES.filter(bool),
    top_p=TOP_PS,
    top_k=st.none() | TOP_KS,
    seed=SEEDS,
    choice=st.integers(0, 4),
)

SCORES: dict[str, Callable[[int], torch.Tensor]] = {
    "flat": lambda _: torch.zeros(VOCABULARY),
    "levels": lambda seed: torch.from_numpy(np.random.default_rng(seed).integers(0, 5, VOCABULARY)),
    "usual": lambda seed: torch.from_numpy(np.random.default_rng(seed).normal(0, 4, VOCABULARY)),
    "certain": lambda seed: torch.eye(VOCABULARY)[seed % VOCABULARY] * 1e4,
    "masked": lambda seed: torch.arange(VOCABULARY).where(
        torch.arange(VOCABULARY) >= seed % VOCABULARY, -torch.inf
    ),
}

ROWS = st.lists(
    st.tuples(SAMPLINGS, st.sampled_from(sorted(SCORES)), st.integers(0, 100)),
    min_size=1,
    max_size=12,
)

UNHURRIED = settings(deadline=None, derandomize=True, max_examples=100)


class Operations(TorchFunctionMode):  # type: ignore[misc]  # untyped
    """The names of torch's functions, in the order in which they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(func.__name__)
        return func(*args, **kwargs or {})


def operations(scores: torch.Tensor, rows: list[Sampling], position: int = 0) -> list[str]:
    called = Operations()
    with called:
        draw(scores.clone(), [(each, each.noise(position)) for each in rows])
    names: list[str] = called.names
    return names


@UNHURRIED
@given(ROWS, st.integers(0, 4096))
def test_a_drawn_token_is_among_the_likeliest_that_the_settings_allow(
    rows: list[tuple[Sampling, str, int]], position: int
) -> None:
    scores = torch.stack([SCORES[kind](seed).float() for _, kind, seed in rows])
    tokens = draw(scores.clone(), [(each, each.noise(position)) for each, _, _ in rows])
    for row, (sampling, _, _), token in zip(scores, rows, tokens.tolist(), strict=True):
        cold = row / np.float32(max(sampling.temperature, COLDEST))
        weights = (cold - cold.max()).exp().double()
        heavier = weights > weights[token]
        assert int(heavier.sum()) < (sampling.top_k or VOCABULARY + 1)
        if sampling.top_k:
            last = weights.topk(min(sampling.top_k, VOCABULARY)).values[-1]
            weights = weights.where(weights >= last, 0)
        before = float(weights[heavier].sum() / weights.sum())
        assert before == 0 or before < sampling.top_p * (1 + 1e-5)
        assert weights[token] > 0


@UNHURRIED
@given(st.lists(st.tuples(SAMPLINGS, SAMPLINGS), min_size=1, max_size=8), st.integers(0, 100))
def test_no_value_of_a_setting_takes_more_operations_than_another(
    pairs: list[tuple[Sampling, Sampling]], seed: int
) -> None:
    """What is set decides what is computed, never the value or the scores."""
    one = [each for each, _ in pairs]
    other = [
        dataclasses.replace(
            another,
            top_p=min(another.top_p, 0.999) if each.top_p < 1 else 1.0,
            top_k=(another.top_k or 3) if each.top_k else None,
        )
        for each, another in pairs
    ]
    usual = torch.stack([SCORES["usual"](seed + at).float() for at in range(len(pairs))])
    flat = torch.zeros_like(usual)
    assert operations(usual, one) == operations(flat, other, position=seed)


def test_pieces_of_a_large_batch_are_drawn_like_a_small_one() -> None:
    size = PIECE // 3
    scores = torch.randn(7, size, generator=torch.Generator().manual_seed(2))
    rows = [Sampling(1.0, top_p=0.2 * at + 0.01 if at < 5 else 1.0, seed=at) for at in range(7)]
    together = draw(scores.clone(), [(each, each.noise(0)) for each in rows])
    alone = [
        draw(scores[at : at + 1].clone(), [(each, each.noise(0))]) for at, each in enumerate(rows)
    ]
    assert together.tolist() == torch.cat(alone).tolist()


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_no_numbers_disturb_no_other_row(broken: float) -> None:
    """A row of them has no right token; it gets one of the vocabulary all the same."""
    fine = Sampling(1.0, top_p=0.5, top_k=20, seed=4)
    scores = torch.stack([torch.full((VOCABULARY,), broken), SCORES["usual"](1).float()])
    (alone,) = draw(scores[1:].clone(), [(fine, fine.noise(0))]).tolist()
    first, second = draw(scores, [(fine, fine.noise(0)), (fine, fine.noise(0))]).tolist()
    assert 0 <= first < VOCABULARY
    assert second == alone


COMMON = {
    "temperature": TEMPERATURES,
    "top_p": st.none() | TOP_PS,
    "top_k": st.none() | TOP_KS,
    "seed": st.none() | SEEDS,
    "stream": st.booleans(),
}
WORDS = st.lists(st.integers(1, 63), min_size=1, max_size=20).map(
    lambda numbers: " ".join(f"w{number}" for number in numbers)
)
STOPS = st.text(max_size=6) | st.sampled_from(["w1", " ", "w", "\n"])

CALLS = st.tuples(
    st.just("/local-inference"),
    st.fixed_dictionaries(
        {
            "prompt": WORDS,
            "max_length": st.integers(1, 12),
            "num_sequences": st.integers(1, 5),
            **COMMON,
        }
    ),
) | st.tuples(
    st.sampled_from(["/v1/chat/completions", "/v1/completions"]),
    st.fixed_dictionaries(
        {
            "messages": WORDS.map(lambda text: [{"role": "user", "content": text}]),
            "prompt": WORDS,
            "max_tokens": st.integers(1, 12),
            "n": st.integers(1, 5),
            "stop": st.none() | STOPS | st.lists(STOPS.filter(bool), max_size=MAX_STOPS),
            **COMMON,
        }
    ),
)


class Running:
    """The service in process on a loop of its own, for tests that are not coroutines."""

    def __init__(self, folder: str) -> None:
        settings = Settings(local_model_name=folder, engine_max_context=64, engine_max_requests=8)
        app = build(settings, Telemetry("inference-svc", settings))
        self.loop = asyncio.Runner()
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://inference-svc"
        )
        self._open = AsyncExitStack()
        self.loop.run(self._open.enter_async_context(app.router.lifespan_context(app)))
        self.loop.run(self._open.enter_async_context(self.http))

    def post(self, calls: list[tuple[str, dict[str, Any]]]) -> list[httpx2.Response]:
        """The answers to calls that are made together."""

        async def all_of_them() -> list[httpx2.Response]:
            async with asyncio.timeout(60):
                return await asyncio.gather(
                    *[self.http.post(path, json=body) for path, body in calls]
                )

        return self.loop.run(all_of_them())

    def close(self) -> None:
        self.loop.run(self._open.aclose())
        self.loop.close()


@pytest.fixture(scope="module")
def running(model_folder: Any) -> Iterator[Running]:
    running = Running(str(model_folder))
    yield running
    running.close()


@settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(calls=st.lists(CALLS, min_size=1, max_size=6))
def test_whatever_is_accepted_is_answered_beside_a_neighbour_who_notices_nothing(
    running: Running, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    neighbour = ("/local-inference", {"prompt": "w5 w6 w7", "max_length": 8, "temperature": 0})
    [alone] = running.post([neighbour])
    *answers, beside = running.post([*calls, neighbour])
    assert [answer.status_code for answer in answers] == [200] * len(calls)
    for answer in answers:
        assert b'"error"' not in answer.content
    assert beside.json()["generated_texts"] == alone.json()["generated_texts"]


@pytest.mark.parametrize("top_p", [5e-324, 1e-300, 1e-46, 1e-38])
@pytest.mark.parametrize("path", ["/local-inference", "/v1/chat/completions"])
def test_a_nucleus_too_small_for_a_float_is_the_likeliest_token(
    running: Running, path: str, top_p: float
) -> None:
    chat = {"messages": [{"role": "user", "content": "w1 w2"}], "max_tokens": 4}
    asked = chat if path.startswith("/v1") else {"prompt": "w1 w2", "max_length": 4}
    drawn, greedy = running.post(
        [(path, {**asked, "top_p": top_p, "temperature": 1.5}), (path, {**asked, "temperature": 0})]
    )
    said = "choices" if path.startswith("/v1") else "generated_texts"
    assert drawn.json()[said] == greedy.json()[said]


def test_the_strategies_are_the_space_of_the_contract() -> None:
    """A setting added to the contract is one to be tried here."""
    tried = {"prompt", "max_length", "num_sequences", *COMMON, "user_id", "session_id"}
    assert set(LocalInferenceRequest.model_fields) == tried
