"""A language model small enough to make on the spot: random weights, whole words as tokens."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = 64


def save(folder: Path, window: int = 128, ends: bool = True) -> Path:
    """Write a model of so many tokens into a folder; its words are w1, w2 …

    It ends a text after some fifty words, or goes on for as many as it is asked for.
    """
    vocabulary = {"<eos>": 0, **{f"w{index}": index for index in range(1, WORDS)}}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<eos>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>"
    ).save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=window,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    if not ends:
        model.generation_config.eos_token_id = WORDS  # a token that there is not
    model.save_pretrained(folder)
    return folder
