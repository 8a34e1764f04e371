"""A program around LiteLLM, run by the Python of its own environment: nothing of ours is there.

Each line of its input is a JSON object, the arguments of `litellm.completion`; each line of its
output says what came of it, and which other machines LiteLLM wanted to reach until then; none can
be reached.
"""

import json
import os
import socket
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would be fetched while litellm is imported

import litellm
import openai

elsewhere: list[str] = []
connect = socket.socket.connect


def connect_here(self: socket.socket, address: Any) -> None:
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
        elsewhere.append(str(address))
        raise OSError(f"a test wants to reach {address}")
    connect(self, address)


def outcome(arguments: dict[str, Any]) -> dict[str, Any]:
    """The text and the tokens of an answer, or the class of the exception that came instead."""
    try:
        answer = litellm.completion(**arguments)
        chunks = list(answer) if arguments.get("stream") else None
    except openai.OpenAIError as error:
        return {"error": f"{type(error).__module__}.{type(error).__name__}"}
    if chunks is None:
        return {"text": answer.choices[0].message.content, "tokens": answer.usage.total_tokens}
    usage = getattr(chunks[-1], "usage", None)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    return {"text": text, "tokens": usage.total_tokens if usage else None}


def main() -> None:
    socket.socket.connect = connect_here  # type: ignore[assignment,method-assign]
    litellm.suppress_debug_info = True  # it would print its advice among the outcomes
    for line in sys.stdin:
        print(json.dumps({**outcome(json.loads(line)), "elsewhere": elsewhere}), flush=True)


if __name__ == "__main__":
    main()
