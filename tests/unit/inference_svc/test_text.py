"""Text as its tokens come: whole characters, and nothing that has to be taken back."""

import random

import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from inference_svc.text import TextStream

SAMPLE = "Grüße, 世界! 👩‍🚀 ab User: abc\n\nUser: and more"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte: most characters here are several."""
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(ByteLevel.alphabet()))}
    made = Tokenizer(BPE(vocabulary, []))
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    made.decoder = ByteDecoder()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def pieces(
    tokenizer: PreTrainedTokenizerFast, text: str, stops: tuple[str, ...], seed: int
) -> tuple[list[str], TextStream]:
    """What is given out when the tokens come in portions of random size."""
    ids = tokenizer(text)["input_ids"]
    stream = TextStream(tokenizer, stops)
    portions = random.Random(seed)
    given = []
    while ids and not stream.stopped:
        size = portions.randint(1, 3)
        given.append(stream.add(ids[:size]))
        ids = ids[size:]
    given.append(stream.end())
    return given, stream


@pytest.mark.parametrize("seed", range(5))
def test_the_pieces_are_the_text_and_each_is_whole(
    seed: int, tokenizer: PreTrainedTokenizerFast
) -> None:
    given, stream = pieces(tokenizer, SAMPLE, (), seed)
    assert "".join(given) == SAMPLE
    assert not any("\ufffd" in piece for piece in given)
    assert sum(map(bool, given)) > 5
    assert not stream.stopped


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("stops", "kept"),
    [
        (("\n\nUser:",), "Grüße, 世界! 👩‍🚀 ab User: abc"),
        (("User:", "abc"), "Grüße, 世界! 👩‍🚀 ab "),
        (("界",), "Grüße, 世"),
        (("G",), ""),
        (("\n\nSystem:",), SAMPLE),
    ],
)
def test_nothing_of_a_stop_text_is_ever_given_out(
    stops: tuple[str, ...], kept: str, seed: int, tokenizer: PreTrainedTokenizerFast
) -> None:
    given, stream = pieces(tokenizer, SAMPLE, stops, seed)
    assert "".join(given) == kept
    assert stream.stopped == (kept != SAMPLE)


def test_what_might_be_a_stop_text_is_held_until_it_is_none(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    stream = TextStream(tokenizer, ("\n\nUser:",))
    assert stream.add(tokenizer("a\n\nUse")["input_ids"]) == "a"
    assert stream.add(tokenizer("d")["input_ids"]) == "\n\nUsed"


def test_a_half_character_at_the_end_is_not_lost(tokenizer: PreTrainedTokenizerFast) -> None:
    stream = TextStream(tokenizer)
    half = tokenizer("ü")["input_ids"][:1]
    assert stream.add([*tokenizer("a")["input_ids"], *half]) in ("", "a")
    assert stream.end().endswith("\ufffd")
