import asyncio
import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from inference_svc import model
from inference_svc.device import Device
from inference_svc.engine import Engine
from inference_svc.model import LanguageModel
from inference_svc.prompt import Prompts
from o11y.http import deadline
from o11y.web.problems import Problem
from tests.support.engines import greedy, idle, reference
from tests.unit.inference_svc.conftest import LIMITS

LONG = 60


async def test_greedy_output_is_that_of_plain_generate_alone_and_in_a_batch(
    language_model: LanguageModel,
) -> None:
    prompts = [[index, index + 1, index + 2] for index in range(1, 7)]
    expected = [reference(language_model, prompt, 12) for prompt in prompts]
    engine = Engine(language_model, LIMITS)
    engine.start()
    (alone,) = await engine.generate([greedy(prompts[0])])
    together = await engine.generate([greedy(prompt) for prompt in prompts])
    await engine.stop()
    texts = [language_model.tokenizer.decode(ids, skip_special_tokens=True) for ids in expected]
    assert alone.text == texts[0]
    assert [generation.text for generation in together] == texts


async def test_models_of_the_gpt_2_family_run_as_well(
    language_model: LanguageModel, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=64,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    language_model.tokenizer.save_pretrained(tmp_path / "gpt2")
    gpt2 = model.load(str(tmp_path / "gpt2"), Device("cpu", torch.float32), tmp_path)
    expected = reference(gpt2, [1, 2, 3], 8)
    engine = Engine(gpt2, LIMITS)
    engine.start()
    (done,) = await engine.generate([greedy([1, 2, 3], 8)])
    await engine.stop()
    assert done.text == gpt2.tokenizer.decode(expected, skip_special_tokens=True)


async def test_a_generation_counts_its_tokens_and_times(engine: Engine) -> None:
    (done,) = await engine.generate([greedy([1, 2, 3], 5)])
    assert (done.prompt_tokens, done.completion_tokens, done.finish_reason) == (3, 5, "length")
    assert 0 <= done.queue_seconds <= done.first_token_seconds <= done.duration_seconds


async def test_a_stop_text_ends_the_answer_before_itself(engine: Engine) -> None:
    (whole,) = await engine.generate([greedy([1, 2, 3])])
    words = whole.text.split()
    stop = words[3]
    (cut,) = await engine.generate([greedy([1, 2, 3], stop=(stop,))])
    assert stop not in cut.text
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"


async def test_a_prompt_beyond_the_window_is_told_both_lengths(engine: Engine) -> None:
    with pytest.raises(Problem, match=r"60 tokens and 10 new ones .* takes 64 together") as refused:
        await engine.generate([greedy([1] * 60, 10)])
    assert refused.value.status == 422


async def test_too_many_waiting_is_429_with_retry_after(engine: Engine) -> None:
    with pytest.raises(Problem) as refused:
        await engine.generate([greedy([1])] * (LIMITS.max_waiting + 1))
    assert refused.value.status == 429
    assert refused.value.headers["Retry-After"]


async def test_a_passed_deadline_is_504_and_leaves_nothing_running(engine: Engine) -> None:
    with deadline.within(0), pytest.raises(Problem) as late:
        await engine.generate([greedy([1], LONG)])
    assert late.value.status == 504
    await idle(engine)


async def test_a_cancelled_call_leaves_the_batch(engine: Engine) -> None:
    call = asyncio.create_task(engine.generate([greedy([1], LONG)] * 4))
    await asyncio.sleep(0)  # the call runs up to its wait
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await idle(engine)


async def test_one_refused_sequence_takes_its_call_along_but_no_other(engine: Engine) -> None:
    good = asyncio.create_task(engine.generate([greedy([1, 2], 20)]))
    with pytest.raises(Problem):
        await engine.generate([greedy([3]), greedy([4], 500)])
    assert (await good)[0].completion_tokens == 20


async def test_a_stopped_engine_says_so(language_model: LanguageModel) -> None:
    engine = Engine(language_model, LIMITS)
    engine.start()
    assert engine.failure() is None
    await engine.stop()
    assert engine.failure() == "the engine is not running"
    with pytest.raises(Problem, match="this service is stopping"):
        await engine.generate([greedy([1])])


async def test_the_shorter_of_model_and_setting_is_the_window(
    language_model: LanguageModel,
) -> None:
    wide = Engine(language_model, dataclasses.replace(LIMITS, max_context=4096))
    assert wide.window == language_model.window == 128


async def test_a_prompt_is_encoded_as_the_model_expects(language_model: LanguageModel) -> None:
    assert await Prompts(language_model.tokenizer, 64).text("w3 w9") == [3, 9]
