"""Picks each sequence's next token, by the settings of its own request.

Plugs into continuous batching as its list of logits processors, the one public place that sees a
step's rows beside their requests. The engine is told not to sample, so that it takes the largest
score of a row: a greedy row is left as the model wrote it, and in any other the token drawn here
is raised above the rest. Only rows that ask for something pay for it, whereas the library's own
processors sort the whole vocabulary for every row and draw from a softmax over all of it.

The settings of a step are kept on the host between `prepare_tensor_args` and the call, which the
engine makes in turns; a captured CUDA graph would replay one step's settings for all others.
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
"""Lowest temperature that scores are divided by: the likeliest token has all the weight there."""

LEAST = 1e-30
"""Least random number, so that none divides by zero."""

PIECE = 2**20
"""Scores that are processed together: their temporary tensors fit a processor's cache, and are
little beside a GPU's memory.
"""

_WORD = 2**64
_ONE = 0x3F800000  # the bits of 1.0 in float32
_DIGIT = 15
_NINES = (1 << _DIGIT) - 1


@dataclass(frozen=True)
class Sampling:
    """The settings by which one sequence's tokens are drawn.

    `temperature` 0 takes the likeliest token; a lower one than COLDEST counts as that. `top_k`
    keeps the k likeliest and those as likely as the last of them, `top_p` (0 < p ≤ 1) the fewest
    likeliest of those that have the share p of their probability, but one at least, as
    Transformers' `TopKLogitsWarper` and `TopPLogitsWarper` do in this order; so a `top_p` too small
    for float32 is the likeliest token too. `seed` and `choice` (the number of the sequence in its
    call) name the stream of random numbers; a token's share of it depends on its position alone,
    whatever else is in the batch.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0
    choice: int = 0

    def noise(self, position: int) -> np.random.Generator:
        """Random numbers for the token at `position`: each (seed, choice) is a Philox stream of its
        own, and each position a part of that.
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
    """Draw a token for each row of the scores `[rows, vocabulary]`, which are changed: `[rows]`.

    The rows go through in pieces, and each piece through the same operations whatever the values of
    its settings are: nothing is repeated until something holds, so no request makes a step long.
    """
    height = max(1, PIECE // max(scores.shape[-1], 1 << _DIGIT))
    pieces = zip(
        scores.split(height),
        (rows[start : start + height] for start in range(0, len(rows), height)),
        strict=True,
    )
    return torch.cat([_draw(piece, of) for piece, of in pieces])


def _draw(scores: torch.Tensor, rows: list[tuple[Sampling, np.random.Generator]]) -> torch.Tensor:
    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=scores.dtype, device=scores.device).unsqueeze(-1)

    settings = [sampling for sampling, _ in rows]
    scores.div_(column([max(each.temperature, COLDEST) for each in settings]))
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    if limited := [at for at, each in enumerate(settings) if each.top_k]:
        some = weights[limited]
        counts = column([settings[at].top_k or 0 for at in limited])
        last, _ = _border(some, torch.ones_like(some), counts)
        weights[limited] = some * (some >= last)
    if limited := [at for at, each in enumerate(settings) if each.top_p < 1]:
        some = weights[limited]
        share = some.sum(-1, keepdim=True) * column([settings[at].top_p for at in limited])
        last, left = _border(some, some, share)
        equal = some == last
        places = (left / last).ceil_().clamp_(min=1)
        among = equal & (equal.cumsum(-1, dtype=torch.int32) <= places)
        weights[limited] = some * ((some > last) | among)
    return _pick(weights, [noise for _, noise in rows])


def _border(
    weights: torch.Tensor, shares: torch.Tensor, most: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The least weight among the fewest likeliest tokens whose shares add up to `most`, and the
    part of `most` that the tokens of that very weight have to make up: `[rows, 1]` each.

    Weights are between 0 and 1, and the heaviest token of a row is always among those tokens. The
    weight is found without a sort, digit by digit (radix select): of non-negative floats the bits
    have the order of the numbers, and each half of them is a digit.
    """
    bits = weights.view(torch.int32).clamp(0, _ONE)  # NaN stays within the digits
    found = torch.zeros_like(bits[:, :1])
    left = most.clamp(min=torch.finfo(most.dtype).tiny)
    for digit in (bits >> _DIGIT, bits & _NINES):
        sums = torch.zeros(len(bits), 1 << _DIGIT, dtype=shares.dtype, device=shares.device)
        sums = sums.scatter_add_(-1, digit.long(), shares).flip(-1).cumsum(-1)
        left = left.minimum(sums[:, -1:])
        at = torch.searchsorted(sums, left)
        left = left - torch.where(at > 0, sums.gather(-1, (at - 1).clamp_(min=0)), 0)
        chosen = _NINES - at.int()
        shares = shares * (digit == chosen)
        found = found << _DIGIT | chosen
    return found.view(weights.dtype), left


def _pick(weights: torch.Tensor, noises: list[np.random.Generator]) -> torch.Tensor:
    """Draw a token of each row in proportion to the weights, which are `[rows, size]`.

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
