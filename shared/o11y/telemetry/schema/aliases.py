"""Metrics that nothing records: other names of what is recorded once.

`ALIASES` are always shown. `FORMER` are the names that the GenAI conventions had before v0.1.0 of
semantic-conventions-genai, for who asks for them (`environment.FORMER_NAMES`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from o11y.telemetry.schema.attributes import *
from o11y.telemetry.schema.metrics import *


@dataclass(frozen=True)
class Alias:
    """A metric that shows what `recorded` measures.

    `labels` says which attribute each label is, but for its `status`: that is `ok`, `cancelled` or
    `error`, by `error.type`. `where` names the values an attribute must have to be shown, `fixed`
    labels that are always the same.
    """

    shown: Metric
    recorded: Metric
    labels: Mapping[str, str]
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)


_GENERATES = {OPERATION: ("chat", "text_completion")}
_CALL = {LABEL_PROVIDER: LABEL_PROVIDER, LABEL_MODEL: REQUEST_MODEL, LABEL_OPERATION: OPERATION}


def _same(metric: Metric) -> dict[str, str]:
    return {label: label for label in metric.labels}


def _usage(shown: Metric, kind: str) -> Alias:
    """A counter of the conventions, of tokens of this type that the provider has counted."""
    counted = {LABEL_TYPE: (kind,), LABEL_ESTIMATED: ("false",)}
    return Alias(shown, OPENAI_TOKENS, _same(shown), where={**counted, **_GENERATES})


ALIASES = (
    Alias(OPENAI_API_DURATION, GEN_AI_INFERENCE_DURATION, _CALL),
    Alias(OPENAI_API_DURATION, GEN_AI_EMBEDDINGS_DURATION, _CALL),
    Alias(
        MODEL_DURATION,
        MODEL_REQUEST_DURATION,
        {LABEL_MODEL: REQUEST_MODEL, LABEL_DEVICE: MODEL_DEVICE},
        where=_GENERATES,
    ),
    _usage(GEN_AI_USAGE_INPUT, "input"),
    _usage(GEN_AI_USAGE_OUTPUT, "output"),
    _usage(GEN_AI_USAGE_CACHE_READ, "cached"),
    _usage(GEN_AI_USAGE_CACHE_WRITE, "cache_write"),
    _usage(GEN_AI_USAGE_REASONING, "reasoning"),
)

_client = Emitted(("llm-proxy",), "semconv 1.41 gen-ai/gen-ai-metrics", GEN_AI_FIRST_CHUNK.labels)
_DURATION = _client.histogram("gen_ai.client.operation.duration", "s", SECONDS, ERROR_TYPE)(
    "Duration of a call to a model."
)
_TOKENS = _client.histogram("gen_ai.client.token.usage", "{token}", TOKENS, TOKEN_TYPE)(
    "Tokens of a call, as the provider counted them."
)
_FIRST_CHUNK = _client.histogram("gen_ai.client.operation.time_to_first_chunk", "s", SECONDS)(
    "Time until the first event of a stream."
)
_CHUNK = _client.histogram("gen_ai.client.operation.time_per_output_chunk", "s", SECONDS)(
    "Time between two arrivals of a stream, after the first; only with `LLM_TIME_CHUNKS`."
)
_WORKFLOW = Emitted(("gateway",), _client.source).histogram(
    "gen_ai.invoke_workflow.duration", "s", AGENT_SECONDS, WORKFLOW_NAME, ERROR_TYPE
)("Duration of a pipeline call.")


def _token_type(recorded: Metric, kind: str) -> Alias:
    return Alias(_TOKENS, recorded, _same(GEN_AI_FIRST_CHUNK), fixed={TOKEN_TYPE: kind})


FORMER = (
    Alias(_DURATION, GEN_AI_INFERENCE_DURATION, _same(_DURATION)),
    Alias(_DURATION, GEN_AI_EMBEDDINGS_DURATION, _same(_DURATION)),
    _token_type(GEN_AI_INPUT_TOKENS, "input"),
    _token_type(GEN_AI_OUTPUT_TOKENS, "output"),
    _token_type(GEN_AI_EMBEDDINGS_TOKENS, "input"),
    Alias(_FIRST_CHUNK, GEN_AI_FIRST_CHUNK, _same(_FIRST_CHUNK)),
    Alias(_CHUNK, GEN_AI_CHUNK, _same(_CHUNK)),
    Alias(_WORKFLOW, GEN_AI_AGENT_DURATION, {WORKFLOW_NAME: AGENT_NAME, ERROR_TYPE: ERROR_TYPE}),
)
