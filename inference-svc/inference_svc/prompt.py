"""Prompts as token ids: chat templates, and a plain one for models that have none."""

import asyncio
from collections.abc import Sequence

import transformers
from jinja2 import TemplateError

from inference_svc.admission import Rejected

PLAIN_STOP = ("\nQuestion:", "\nAnswer:", "\n\n\n")
"""Texts that end an answer to the plain template: a base model would go on with the other side's
part.
"""

_ROLES = {"developer": "system", "function": "tool"}
"""Roles as templates know them, where OpenAI has another word for the same."""

_OF_TEMPLATES = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
"""Exceptions of a chat template, a program that comes with the model and reads callers' messages:
those it raises by itself, and those of expressions in it.
"""


def plain(messages: Sequence[tuple[str, str]]) -> str:
    """Write (role, content) pairs as questions and answers, up to where the next answer begins.

    A base model has read more of these than of a user's talk with an assistant: it keeps to the
    subject better, and gives fewer empty answers.
    """
    titles = {"user": "Question: ", "assistant": "Answer: "}
    turns = [f"{titles.get(role, '')}{content.strip()}" for role, content in messages]
    return "\n\n".join([*turns, "Answer:"])


class Prompts:
    """Turns texts and chats into the token ids of a model that takes `window` of them.

    A tokenizer reads about two million characters a second, so it works in a thread. The methods
    raise Rejected 422 at once for a text of more characters than `window` of the vocabulary's
    longest tokens have.
    """

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerBase, window: int) -> None:
        self._tokenizer = tokenizer
        self._window = window
        self._longest = window * max(map(len, tokenizer.get_vocab()))

    @property
    def has_template(self) -> bool:
        """True for a model that brings a chat template of its own."""
        return bool(getattr(self._tokenizer, "chat_template", None))

    async def text(self, text: str) -> list[int]:
        """Token ids of a text, with the model's opening token when it has one."""
        self._check(len(text))
        return await asyncio.to_thread(self._encode, text)

    async def chat(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """Token ids of (role, content) pairs, up to where the assistant's answer begins."""
        self._check(sum(len(content) for _, content in messages))
        return await asyncio.to_thread(self._encode_chat, messages)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text)["input_ids"])

    def _encode_chat(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        if not self.has_template:
            return self._encode(plain(messages))
        turns = [{"role": _ROLES.get(role, role), "content": text} for role, text in messages]
        try:
            text = self._tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=False
            )
        except _OF_TEMPLATES as error:
            raise Rejected(
                400,
                f"the model's chat template refuses these messages: {error}",
                code="invalid_messages",
                field="messages",
                log_detail="the model's chat template refuses the messages",
            ) from error
        return list(self._tokenizer(str(text), add_special_tokens=False)["input_ids"])

    def _check(self, characters: int) -> None:
        if characters > self._longest:
            raise Rejected(
                422,
                f"the prompt has {characters} characters, and the {self._window} tokens that the "
                f"model takes have {self._longest} at most",
                code="context_length_exceeded",
                field="prompt",
            )
