"""Prompts as token ids: chat templates, and a plain one for models that have none."""

from collections.abc import Sequence

import transformers

PLAIN_STOP = ("\nUser:", "\nSystem:", "\nAssistant:", "\n\n\n")
"""Where an answer to the plain template ends: a base model would go on with the other side's
part.
"""


def has_template(tokenizer: transformers.PreTrainedTokenizerBase) -> bool:
    return bool(getattr(tokenizer, "chat_template", None))


def plain(messages: Sequence[tuple[str, str]]) -> str:
    """(role, content) pairs as a dialogue that ends where the assistant's answer begins."""
    titles = {"user": "User: ", "assistant": "Assistant: "}
    turns = [f"{titles.get(role, '')}{content.strip()}" for role, content in messages]
    return "\n\n".join([*turns, "Assistant:"])


def encode_chat(
    tokenizer: transformers.PreTrainedTokenizerBase, messages: Sequence[tuple[str, str]]
) -> list[int]:
    if not has_template(tokenizer):
        return encode(tokenizer, plain(messages))
    turns = [{"role": role, "content": content} for role, content in messages]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(str(text), add_special_tokens=False)["input_ids"])


def encode(tokenizer: transformers.PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, with the model's opening token when it has one."""
    return list(tokenizer(text)["input_ids"])
