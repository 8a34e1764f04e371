"""The packaged model's greedy answers are those of plain `generate`, whoever shares its batch."""

import asyncio

import torch

from inference_svc import model
from inference_svc.device import Device
from inference_svc.engine import Engine, EngineLimits, GenerationRequest
from inference_svc.prompt import Prompts
from inference_svc.settings import Settings

WORDS = "A span has a name, a start, an end, attributes, events and a parent: a trace is a tree."
LIMITS = EngineLimits(
    max_context=4096, max_requests=32, max_batch_tokens=512, cache_blocks=128, max_waiting=64
)


async def test_greedy_is_plain_generate_and_a_seed_repeats_itself_in_a_batch_of_32() -> None:
    """In float32, whose rounding is far below the gaps between scores that bfloat16 makes ties of:
    a batch of another shape adds up in another order.
    """
    loaded = model.load(None, Device("cpu", torch.float32), Settings().model_cache_dir)
    words = WORDS.split()
    prompts = Prompts(loaded.tokenizer, LIMITS.max_context)
    requests = [
        GenerationRequest(
            prompt_ids=await prompts.text(" ".join(words[: 1 + at % len(words)])),
            max_new_tokens=4 + at % 9,
            temperature=[0.0, 0.8][at % 2],
            top_p=[None, 0.9][at // 2 % 2],
            top_k=[None, 40][at // 4 % 2],
            seed=at,
        )
        for at in range(32)
    ]
    expected: dict[int, str] = {}
    for at in range(0, 32, 2):
        ids = requests[at].prompt_ids
        output = loaded.model.generate(
            torch.tensor([ids]), max_new_tokens=requests[at].max_new_tokens, do_sample=False
        )
        expected[at] = loaded.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)
    engine = Engine(loaded, LIMITS)
    engine.start()
    for at in (0, 1, 3, 5, 7):
        (alone,) = await engine.generate([requests[at]])
        assert expected.setdefault(at, alone.text) == alone.text
    streamed = [""] * 32

    async def ask(at: int) -> str:
        def emit(_: int, text: str) -> None:
            streamed[at] += text

        (done,) = await engine.generate([requests[at]], emit if at % 3 else None)
        return done.text

    together = await asyncio.gather(*[ask(at) for at in range(32)])
    await engine.stop()
    assert {at: together[at] for at in expected} == expected
    assert [streamed[at] for at in range(32) if at % 3] == [
        together[at] for at in range(32) if at % 3
    ]
