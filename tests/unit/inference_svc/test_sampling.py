"""Drawn tokens: Transformers' own distribution, whatever else is in the batch."""

import asyncio
import dataclasses

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from inference_svc.engine import Engine, GenerationRequest
from inference_svc.model import LanguageModel
from inference_svc.sampling import Sampling, draw
from tests.support.engines import reference
from tests.unit.inference_svc.conftest import LIMITS

DRAWS = 5_000
SETTINGS = [
    Sampling(0.7),
    Sampling(1.0, top_k=1),
    Sampling(1.3, top_k=7),
    Sampling(1.0, top_k=500),
    Sampling(1.0, top_p=0.9),
    Sampling(0.6, top_p=0.3),
    Sampling(2.0, top_p=0.999),
    Sampling(1.0, top_p=1e-6),
    Sampling(1.5, top_p=0.8, top_k=9),
]


def logits(ties: bool) -> torch.Tensor:
    made = torch.randn(150, generator=torch.Generator().manual_seed(5)) * 2
    return made.round() if ties else made


def warped(scores: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Probabilities by the library's own processors."""
    ids = torch.zeros(1, 1, dtype=torch.long)
    scores = TemperatureLogitsWarper(sampling.temperature)(ids, scores.unsqueeze(0))
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(ids, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(ids, scores)
    return scores.softmax(-1).squeeze(0)


@pytest.mark.slow
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_tokens_have_the_distribution_of_the_librarys_warpers(
    sampling: Sampling, ties: bool
) -> None:
    """Of equally likely tokens at the border the library keeps no certain ones, but as many."""
    expected = warped(logits(ties), sampling)
    _, level = logits(ties).unique(return_inverse=True)
    rows = [(sampling, sampling.noise(position)) for position in range(DRAWS)]
    tokens = draw(logits(ties).repeat(DRAWS, 1), rows)
    assert len(tokens.unique()) <= int((expected > 0).sum())
    counts = torch.bincount(level[tokens], minlength=int(level.max()) + 1)
    expected = torch.zeros(len(counts)).index_add(0, level, expected)
    assert not counts[expected == 0].any()
    wanted = expected * DRAWS
    spread = (wanted * (1 - expected)).sqrt()
    assert ((counts - wanted).abs() <= 5 * spread + 1).all()


def test_a_row_is_drawn_alike_alone_and_beside_others() -> None:
    scores = torch.randn(len(SETTINGS), 150, generator=torch.Generator().manual_seed(1))
    settings = [dataclasses.replace(each, seed=at) for at, each in enumerate(SETTINGS)]
    for position in range(50):
        together = draw(scores.clone(), [(each, each.noise(position)) for each in settings])
        alone = [
            draw(scores[at : at + 1].clone(), [(each, each.noise(position))])
            for at, each in enumerate(settings)
        ]
        assert together.tolist() == torch.cat(alone).tolist()


def test_each_seed_choice_and_position_has_its_own_noise() -> None:
    keys = [(0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, 0, 1), (2**63 - 1, 4, 9)]
    drawn = {
        tuple(Sampling(seed=seed, choice=choice).noise(position).random(4))
        for seed, choice, position in keys
    }
    assert len(drawn) == len(keys)
    assert np.array_equal(Sampling(seed=3).noise(8).random(4), Sampling(seed=3).noise(8).random(4))


def test_the_coldest_temperature_takes_the_likeliest() -> None:
    scores = logits(False)
    sampling = Sampling(1e-300)
    tokens = draw(scores.repeat(100, 1), [(sampling, sampling.noise(at)) for at in range(100)])
    assert set(tokens.tolist()) == {int(scores.argmax())}


async def test_a_mixed_batch_of_32_disturbs_nobody(language_model: LanguageModel) -> None:
    """Greedy is plain `generate`; a seed says the same alone, batched, streamed, evicted."""
    requests = [
        GenerationRequest(
            prompt_ids=[1 + (at * 7 + step) % 60 for step in range(1 + at * 3 % 30)],
            max_new_tokens=4 + at * 5 % 25,
            temperature=[0.0, 0.8, 0.0, 1.5][at % 4],
            top_p=[None, None, 0.5, 0.9][at % 4],
            top_k=[None, 20, None, None][at % 4],
            seed=at,
        )
        for at in range(32)
    ]
    expected = [
        language_model.tokenizer.decode(
            reference(language_model, each.prompt_ids, each.max_new_tokens),
            skip_special_tokens=True,
        )
        for each in requests
    ]
    # Prompts in pieces, and fewer pages than all need at once, so that some are put back.
    limits = dataclasses.replace(
        LIMITS, max_requests=32, max_batch_tokens=64, cache_blocks=24, max_waiting=64
    )
    engine = Engine(language_model, limits)
    engine.start()
    sampled = [at for at, each in enumerate(requests) if each.temperature]
    alone = {at: (await engine.generate([requests[at]]))[0].text for at in sampled}
    streamed: dict[int, str] = {}

    async def ask(at: int) -> str:
        def emit(_: int, text: str) -> None:
            streamed[at] = streamed.get(at, "") + text

        (done,) = await engine.generate([requests[at]], emit if at % 3 else None)
        return done.text

    together = await asyncio.gather(*[ask(at) for at in range(32)])
    await engine.stop()
    assert together == [alone.get(at, expected[at]) for at in range(32)]
    assert all(streamed.get(at, "") == together[at] for at in range(32) if at % 3)
    assert any(together[at] != expected[at] for at in sampled)
