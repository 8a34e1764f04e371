"""Spans and their events: names, whose they are, and the keys they have."""

from dataclasses import dataclass
from typing import Literal

from o11y.telemetry.schema.attributes import *
from o11y.telemetry.schema.metrics import EVERY_SERVICE

SPAN_WORKFLOW = "full-pipeline"
"""Name of the workflow."""
_WORKFLOW = f"invoke_workflow {SPAN_WORKFLOW}"
SPAN_CORPUS = "load corpus"

EVENT_STAGE_FAILED = "stage failed"
EVENT_ADMITTED = "admitted"
EVENT_FIRST_TOKEN = "first token"
EVENT_CANCELLED = "cancelled"
EVENT_INFERENCE = "gen_ai.client.inference.operation.details"  # semconv gen-ai


@dataclass(frozen=True)
class SpanName:
    """The spans of one sort, and the keys they may have; words in braces stand for what differs."""

    pattern: str
    kind: Literal["SERVER", "CLIENT", "INTERNAL"]
    services: tuple[str, ...]
    source: str
    note: str
    attributes: tuple[str, ...] = ()
    events: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """Something that happened within a span."""

    name: str
    note: str
    attributes: tuple[str, ...] = ()


_HTTP = "semconv http/http-spans"
_GEN_AI = "semconv gen-ai/gen-ai-spans"
_AGENT = "semconv gen-ai/gen-ai-agent-spans#invoke-agent-internal-span"
_INFERENCE = "semconv gen-ai/client-inference#span-gen_aiclientinference"
_EMBEDDINGS = "semconv gen-ai/client-embeddings#span-gen_aiclientembeddings"
_DB = "semconv db/database-spans"

_SAID = (INPUT_MESSAGES, OUTPUT_MESSAGES, SYSTEM_INSTRUCTIONS)
_CALLED = (OPERATION, PROVIDER, REQUEST_MODEL, ERROR_TYPE)
_ANSWERED = (
    *(*_CALLED, RESPONSE_MODEL, REQUEST_MAX_TOKENS, REQUEST_TEMPERATURE, REQUEST_CHOICES),
    *(REQUEST_TOP_P, REQUEST_SEED, REQUEST_STREAM, FINISH_REASONS, INPUT_TOKENS, OUTPUT_TOKENS),
    *(PROMPT_TOKENS_ORIGINAL, COMPLETION_TOKENS_ORIGINAL),
)

EVENTS = (
    Event(EVENT_STAGE_FAILED, "A stage failed; the others go on.", (PIPELINE_STAGE, STAGE_ERROR)),
    Event(EVENT_ADMITTED, "The call's first forward step began: its time in the queue is over."),
    Event(EVENT_FIRST_TOKEN, "The first token is there."),
    Event(EVENT_CANCELLED, "Its client left, or it was out of time.", (LABEL_REASON, LABEL_STATUS)),
    Event(
        EVENT_INFERENCE,
        "A log record of severity DEBUG: the attributes of a call's span; with `LOG_LEVEL=DEBUG`, "
        "or with capture.",
        _SAID,
    ),
)

SPANS = (
    SpanName(
        *("{method} {route}", "SERVER", EVERY_SERVICE, f"{_HTTP}#http-server"),
        "A request, until the last byte of its answer; only the method where no route matched.",
        (
            *(HTTP_METHOD, HTTP_METHOD_ORIGINAL, HTTP_ROUTE, HTTP_STATUS, URL_PATH, URL_QUERY),
            *(URL_SCHEME, SERVER_ADDRESS, SERVER_PORT, PROTOCOL_VERSION),
            *(ADMISSION_DECISION, ADMISSION_REASON, ERROR_TYPE),
        ),
    ),
    SpanName(
        *("{method} {path}", "CLIENT", ("gateway", "llm-proxy"), f"{_HTTP}#http-client"),
        "One attempt of a call to a service or an LLM provider; a stream's lasts until it ends.",
        (
            *(HTTP_METHOD, HTTP_STATUS, HTTP_RESEND_COUNT, URL_FULL, URL_TEMPLATE),
            *(SERVER_ADDRESS, SERVER_PORT, PEER_ADDRESS, PEER_PORT, PROTOCOL_VERSION),
            *(PEER_SERVICE, PIPELINE_STAGE, ERROR_TYPE, PROVIDER, REQUEST_MODEL, LLM_PROVIDER),
            *(LLM_ATTEMPT, ATTEMPT_INPUT_TOKENS, ATTEMPT_OUTPUT_TOKENS, ATTEMPT_COST_USD),
            USAGE_ESTIMATED,
        ),
    ),
    SpanName(
        *(_WORKFLOW, "INTERNAL", ("gateway",), _AGENT),
        "A pipeline call.",
        (OPERATION, AGENT_NAME, PIPELINE_STEPS, COST_USD, ERROR_TYPE),
        (EVENT_STAGE_FAILED,),
    ),
    SpanName(
        SPAN_CORPUS, "INTERNAL", ("gateway",), "o11y", "The packaged texts are stored, at start."
    ),
    SpanName(
        *("{operation} {model}", "CLIENT", ("llm-proxy",), _INFERENCE),
        "A call to a model, retries and fallbacks included; a stream's lasts until it ends.",
        (
            *(*_ANSWERED, RESPONSE_ID, FIRST_CHUNK_SECONDS, CACHE_READ_TOKENS, CACHE_WRITE_TOKENS),
            *(REASONING_TOKENS, AUDIO_INPUT_TOKENS, AUDIO_OUTPUT_TOKENS, LLM_PROVIDER),
            *(LLM_ATTEMPTS, SERVER_ADDRESS, SERVER_PORT, COST_USD, COST_SOURCE, USAGE_ESTIMATED),
            *_SAID,
        ),
    ),
    SpanName(
        *("{operation} {model}", "INTERNAL", ("inference-svc",), _INFERENCE),
        "A generation by the local model, queue included.",
        (
            *(*_ANSWERED, REQUEST_TOP_K, REQUEST_STOP, MODEL_NAME, MODEL_DEVICE, MODEL_PARAMETERS),
            *(TOKENS_PER_SECOND, BATCH_EFFICIENCY, STEPS, BATCH_MEAN, BATCH_MOST, QUEUE_SECONDS),
            *(FIRST_TOKEN_SECONDS, LOCAL_COST_USD, ENERGY_JOULES, *_SAID),
        ),
        (EVENT_ADMITTED, EVENT_FIRST_TOKEN, EVENT_CANCELLED),
    ),
    SpanName(
        *("embeddings {model}", "CLIENT", ("inference-svc",), _EMBEDDINGS),
        "Embeddings by the local model, queue included.",
        (
            *(*_CALLED, MODEL_NAME, MODEL_DEVICE, INPUT_TOKENS, PROMPT_TOKENS_ORIGINAL),
            *(DOCUMENT_COUNT, EMBEDDING_DIMENSIONS, EMBEDDING_WINDOWS),
            *(QUEUE_SECONDS, BATCH_SIZE, LOCAL_COST_USD, ENERGY_JOULES),
        ),
    ),
    SpanName(
        *("retrieval {collection}", "CLIENT", ("vector-svc",), f"{_GEN_AI}#retrievals"),
        "A search in Chroma.",
        (
            *(*_CALLED, DB_SYSTEM, DATA_SOURCE, RETRIEVAL_TOP_K, RETRIEVAL_DOCUMENTS),
            *(RESULT_COUNT, TOP_SIMILARITY),
        ),
    ),
    SpanName(
        *("upsert {collection}", "CLIENT", ("vector-svc",), _DB),
        "Documents are stored in Chroma.",
        (DB_SYSTEM, DB_OPERATION, DB_COLLECTION, EMBEDDING_MODEL, DOCUMENT_COUNT, ERROR_TYPE),
    ),
)
