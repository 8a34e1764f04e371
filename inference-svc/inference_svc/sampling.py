"""Picks each sequence's next token, by the settings of its own request.

Plugs into continuous batching as its list of logits processors, the one public place that sees a
step's rows beside their requests. The engine is told not to sample, so that it takes the largest
score of a row: a greedy row is left as the model wrote it, and in any other the token drawn here
is raised above the rest. Only rows that ask for something pay for it, whereas the library's own
processors sort the whole vocabulary for every row and draw from a softmax over all of it.

What a step needs is kept on the host between `prepare_tensor_args` and the call, which the engine
makes in turns; a captured CUDA graph would replay one step's settings for all others.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from transformers import LogitsProcessorList
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.continuous_batching.requests import FutureRequestState

ARGUMENT = "sampling"
"""The keyword under which `add_request` takes a `Sampling`."""

COLDEST = 1e-6
"""The lowest temperature that is divided by; colder ones pick the same tokens."""

LEAST = 1e-30
"""No random number is less, so that none divides by zero."""

_WORD = 2**64


@dataclass(frozen=True)
class Sampling:
    """How one sequence's tokens are drawn.

    `temperature` 0 takes the likeliest token. `top_k` keeps the k likeliest, `top_p` (0 < p ≤ 1)
    the fewest likeliest of those that have the share p of their probability, as Transformers'
    `TopKLogitsWarper` and `TopPLogitsWarper` do in this order. `seed` and `choice` (the number of
    the sequence in its call) name the stream of random numbers; a token's share of it depends on
    its position alone, whatever else is in the batch.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0
    choice: int = 0

    def noise(self, position: int) -> np.random.Generator:
        """Random numbers of the token at `position`: Philox, of which each (seed, choice) is a
        stream of its own and each position a part of that.
        """
        key = np.array([self.seed % _WORD, self.choice], dtype=np.uint64)
        counter = np.array([0, position, 0, 0], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(counter=counter, key=key))


@dataclass(frozen=True)
class _Row:
    """A row of the scores whose token is drawn, and the numbers to draw it with."""

    index: int
    sampling: Sampling
    noise: np.random.Generator


class Sampler(ContinuousBatchingLogitsProcessorList):  # type: ignore[misc]  # untyped
    """The engine's list of logits processors, of which `Sampling` is the only setting."""

    def __init__(self) -> None:
        super().__init__(LogitsProcessorList())
        self.supported_keys = {ARGUMENT: Sampling}
        self.do_processing = True
        self._rows: list[_Row] = []

    def prepare_tensor_args(
        self, requests_in_batch: list[FutureRequestState], arg_storage: torch.Tensor
    ) -> torch.Tensor:
        """Note the settings of the coming step's rows, in the order of its scores.

        The position of a new token is the length of what the model has read by then: it is the
        same after a prefill in pieces, a shared prefix, and an eviction that begins anew.
        """
        states = [request.state for request in requests_in_batch if request.has_new_token]
        self._rows = [
            _Row(index, sampling, sampling.noise(state.position_offset))
            for index, state in enumerate(states)
            if (sampling := state.logit_processor_kwargs.get(ARGUMENT, Sampling())).temperature
        ]
        return arg_storage

    def __call__(
        self,
        input_ids: torch.LongTensor,  # noqa: ARG002
        scores: torch.Tensor,
        logits_processor_args: torch.Tensor,  # noqa: ARG002
    ) -> torch.Tensor:
        """Raise the drawn token of each sampled row; scores are `[rows, vocabulary]` in float32."""
        if self._rows:
            indices = torch.tensor([row.index for row in self._rows], device=scores.device)
            tokens = draw(scores[indices], [(row.sampling, row.noise) for row in self._rows])
            scores[indices, tokens] = torch.inf
        return scores


def draw(scores: torch.Tensor, rows: list[tuple[Sampling, np.random.Generator]]) -> torch.Tensor:
    """One token for each row of the scores `[rows, vocabulary]`, which are used up: `[rows]`.

    A nucleus is found without a sort: a token is drawn from the whole row and kept if the tokens
    before it (likelier, or as likely with a higher id: the library leaves the order of ties open)
    have less than `top_p` of the probability. If they have more, all behind them is outside as
    well, and the next draw is among those before it. What is kept has the nucleus' distribution.
    """

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, device=scores.device).unsqueeze(-1)

    settings = [sampling for sampling, _ in rows]
    scores.div_(column([max(each.temperature, COLDEST) for each in settings]))
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    _keep_top_k(weights, scores, settings)
    tokens = _pick(weights, [noise for _, noise in rows])
    pending = [at for at, each in enumerate(settings) if each.top_p < 1]
    if pending:
        weights = weights[pending]
        most = weights.sum(-1) * column([settings[at].top_p for at in pending]).squeeze(-1)
    while pending:
        drawn = tokens[pending]
        before = _before(weights, drawn)
        outside = (before.sum(-1) >= most).nonzero().squeeze(-1)
        pending = [pending[at] for at in outside.tolist()]
        if pending:
            weights, most = before[outside], most[outside]
            tokens[pending] = _pick(weights, [rows[at][1] for at in pending])
    return tokens


def _keep_top_k(weights: torch.Tensor, scores: torch.Tensor, settings: list[Sampling]) -> None:
    """Weigh nothing below the k-th score of the rows that have a `top_k`."""
    size = scores.shape[-1]
    limited = [(at, each.top_k) for at, each in enumerate(settings) if each.top_k]
    if limited:
        at = [row for row, _ in limited]
        ranks = torch.tensor([[min(k, size) - 1] for _, k in limited], device=scores.device)
        chosen = scores[at]
        last = chosen.topk(min(max(k for _, k in limited), size)).values.gather(-1, ranks)
        weights[at] *= (chosen - last).sign_().add_(1).clamp_(max=1)


def _pick(weights: torch.Tensor, noises: list[np.random.Generator]) -> torch.Tensor:
    """A token of each row with a chance in proportion to its weight; weights are `[rows, size]`.

    The largest weight over an exponential random number is such a choice (the Gumbel-max trick).
    It is made among blocks of tokens and then within one, so that a row takes about twice the
    square root of its size of random numbers, and small differences of the weights, as batches of
    other shapes bring them about, seldom change what is chosen.
    """
    count, size = weights.shape
    width = math.isqrt(size - 1) + 1
    blocks = -(-size // width)
    grid = functional.pad(weights, (0, blocks * width - size)).view(count, blocks, width)
    numbers = np.stack(
        [noise.standard_exponential(blocks + width, dtype=np.float32) for noise in noises]
    )
    noise = torch.from_numpy(np.maximum(numbers, LEAST)).to(weights.device)
    block = (grid.sum(-1) / noise[:, :blocks]).argmax(-1)
    inside = grid[torch.arange(count, device=weights.device), block] / noise[:, blocks:]
    return block * width + inside.argmax(-1)


def _before(weights: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The weights without those of each row's token and all behind it in the order of `draw`."""
    own = weights.gather(-1, tokens.unsqueeze(-1))
    side = torch.sign(weights - own)
    before = weights * side.clamp(min=0)
    for row in (side.shape[-1] - side.abs().sum(-1) > 1).nonzero().squeeze(-1).tolist():
        behind = int(tokens[row]) + 1
        before[row, behind:] += own[row] * (side[row, behind:] == 0)
    return before
