"""What the stand-in says: texts, tool calls, vectors and the tokens they take."""

import array
import base64
import hashlib
import itertools
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

from tests.support.openai_standin.errors import Refusal
from tests.support.openai_standin.ledger import DATED, Operation, Usage
from tests.support.openai_standin.step import Step

OPERATIONS: dict[str, Operation] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
MISSING_MODEL = "missing-model"
WORDS = ("The", "café", "in", "東京", "serves", "naïve", "robots", "—", "and", "tea", "🍵.")
CHUNKS = 8
CHUNK_BYTES = 4096
"""Size of a chunk of a text whose size is given and whose number of chunks isn't."""
DIMENSIONS = {"text-embedding-3-large": 3072}
SPECIAL = {
    "cached": Usage(0, cached=1024),
    "reasoning": Usage(0, reasoning=64),
    "audio": Usage(0, prompt_audio=100, completion_audio=50),
}
"""What these steps add to a call's tokens."""


@dataclass(frozen=True)
class Answer:
    """A generated answer, before it is written in one of the API's shapes."""

    id: str
    created: int
    model: str
    operation: Operation
    pieces: list[str]
    """The text of each choice, in chunks."""
    choices: int
    finish: str
    function: str | None
    """The tool that is called, with the text as its arguments."""
    vectors: list[Any]
    usage: Usage
    explicit: dict[str, Any] | None
    """The usage to report, where the step says it."""

    @property
    def chunks(self) -> int:
        return len(self.pieces) * self.choices

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def reported(self) -> dict[str, Any]:
        return self.usage.reported(self.operation) if self.explicit is None else self.explicit

    def reports_tokens(self) -> bool:
        """Whether what it reports has the counts that a client needs."""
        needed = ["prompt_tokens"]
        if self.operation != "embeddings":
            needed.append("completion_tokens")
        return all(isinstance(self.reported().get(name), int) for name in needed)


def generate(operation: Operation, body: dict[str, Any], step: Step) -> Answer:
    """Raises Refusal where OpenAI would refuse the body."""
    asked = _checked(operation, body)
    model = body["model"]
    pieces: list[str] = []
    vectors: list[Any] = []
    choices, finish, function = 0, "stop", None
    if operation == "embeddings":
        vectors = [_vector(item, body) for item in _inputs(asked)]
    else:
        function, parameters = _called(body) if operation == "chat" else (None, {})
        if body.get("tool_choice") == "required":
            finish = "tool_calls"  # a function called by its name ends with "stop"
        pieces = _pieces(_text(body, step, parameters), step)
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        if isinstance(limit, int) and limit < len(pieces):
            pieces, finish = pieces[:limit], "length"
        prompts = len(_inputs(asked)) if operation == "text_completion" else 1
        wanted = body.get("n") or 1
        if not isinstance(wanted, int):
            raise Refusal(400, "Invalid type for 'n'.", "n", "invalid_type")
        choices = prompts * wanted
    usage = Usage(_tokens(asked), completion_text=len(pieces) * choices)
    explicit = step.usage if isinstance(step.usage, dict) else None
    if explicit is not None:
        usage = Usage.read(explicit, usage)
    elif isinstance(step.usage, str) and step.usage in SPECIAL:
        usage = _sum(usage, SPECIAL[step.usage], operation)
    prefix = "chatcmpl-" if operation == "chat" else "cmpl-"
    return Answer(
        id=prefix + uuid.uuid4().hex,
        created=int(time.time()),
        model=DATED.get(model, model),
        operation=operation,
        pieces=pieces,
        choices=choices,
        finish=finish,
        function=function,
        vectors=vectors,
        usage=usage,
        explicit=explicit,
    )


def _checked(operation: Operation, body: dict[str, Any]) -> Any:
    """What the model is asked, in a body that has all that it needs."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise Refusal(400, "you must provide a model parameter")
    if model == MISSING_MODEL:
        raise Refusal(404, f"The model `{model}` does not exist.", code="model_not_found")
    field = {"chat": "messages", "text_completion": "prompt", "embeddings": "input"}[operation]
    asked = body.get(field)
    if asked is None:
        raise Refusal(
            400, f"Missing required parameter: '{field}'.", field, "missing_required_parameter"
        )
    if not asked:
        raise Refusal(400, f"Invalid '{field}': empty.", field, f"empty_{field}")
    right = list if operation == "chat" else (str, list)
    if not isinstance(asked, right):
        raise Refusal(400, f"Invalid type for '{field}'.", field, "invalid_type")
    return asked


def _inputs(asked: str | list[Any]) -> list[Any]:
    """One string or one list of token ids is one input; any other list has many."""
    return [asked] if isinstance(asked, str) or isinstance(asked[0], int) else asked


def _called(body: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The function that has to be called and the schema of its arguments."""
    choice = body.get("tool_choice")
    named = choice["function"]["name"] if isinstance(choice, dict) else None
    if not body.get("tools") or (choice != "required" and not named):
        return None, {}
    for tool in body["tools"]:
        function = tool["function"]
        if named in (None, function["name"]):
            return function["name"], function.get("parameters") or {"type": "object"}
    raise Refusal(400, f"Tool choice '{named}' not found in 'tools'.", "tool_choice")


def _text(body: dict[str, Any], step: Step, parameters: dict[str, Any]) -> str:
    if step.text is not None:
        return step.text
    text = _words(step.chunks or CHUNKS) if step.size is None else _sized(step.size)
    form = body.get("response_format") or {}
    if parameters:
        schema = parameters
    elif form.get("type") == "json_schema":
        schema = form["json_schema"].get("schema", {})
    elif form.get("type") == "json_object":
        schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    else:
        return text
    return json.dumps(_example(schema, schema, text), ensure_ascii=False)


def _pieces(text: str, step: Step) -> list[str]:
    sized = max(CHUNKS, (step.size or 0) // CHUNK_BYTES)
    count = step.chunks or sized
    edges = [len(text) * place // count for place in range(count + 1)]
    return [text[start:end] for start, end in itertools.pairwise(edges) if end > start]


def _words(count: int) -> str:
    return " ".join(itertools.islice(itertools.cycle(WORDS), max(count, len(WORDS))))


def _sized(size: int) -> str:
    line = f"{_words(len(WORDS))} "
    text = (line * (size // len(line.encode()) + 1)).encode()[:size].decode(errors="ignore")
    return text + "." * (size - len(text.encode()))


def _example(schema: dict[str, Any], root: dict[str, Any], text: str, depth: int = 0) -> Any:
    """A value that a schema of the usual kind allows."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "anyOf", "oneOf"):
        if schema.get(key):
            first = schema[key][0]
            return first if key == "enum" else _example(first, root, text, depth + 1)
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _example(part, root, text, depth + 1) for name, part in properties.items()}
    if kind == "array":
        # A schema that refers to itself does so through a list.
        return [_example(schema.get("items", {}), root, text, depth + 1)] if depth < 4 else []
    return {"string": text, "integer": 1, "number": 1.5, "boolean": True}.get(kind)


def _vector(item: Any, body: dict[str, Any]) -> list[float] | str:
    """A unit vector that depends on its input alone, in the encoding asked for."""
    size = body.get("dimensions") or DIMENSIONS.get(body["model"], 1536)
    noise = array.array("h", hashlib.shake_256(json.dumps(item).encode()).digest(2 * size))
    length = sum(value * value for value in noise) ** 0.5
    vector = array.array("f", (value / length for value in noise))
    if body.get("encoding_format") == "base64":
        return base64.b64encode(vector.tobytes()).decode()
    return vector.tolist()


def _tokens(asked: Any) -> int:
    """About four characters a token; a token id is one."""
    if isinstance(asked, str):
        return -(-len(asked) // 4)
    if isinstance(asked, list | dict):
        parts = asked.values() if isinstance(asked, dict) else asked
        return sum(_tokens(part) for part in parts)
    return 1 if isinstance(asked, int) else 0


def _sum(usage: Usage, more: Usage, operation: Operation) -> Usage:
    if operation == "embeddings":
        return usage
    return Usage(
        prompt_text=usage.prompt_text,
        cached=more.cached,
        prompt_audio=more.prompt_audio,
        completion_text=usage.completion_text,
        reasoning=more.reasoning,
        completion_audio=more.completion_audio,
    )
