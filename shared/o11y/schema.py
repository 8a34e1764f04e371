"""The telemetry schema: every metric, span name and attribute key, each with its source.

Code takes names from here and nowhere else. `source` says where a name comes from: a clause of the
OpenTelemetry semantic conventions ("semconv …"), the names its users already know ("original"),
or this project ("o11y"). Prometheus shows a metric under its name with dots as underscores, the
unit as suffix and `_total` on counters: `model_inference_duration` in `s` is read as
`model_inference_duration_seconds`.
"""

from dataclasses import dataclass
from typing import Literal

# Attribute keys: who
USER_ID = "user.id"  # semconv user
SESSION_ID = "session.id"  # semconv session
USER_ID_ORIGINAL = "user_id"  # original
SESSION_ID_ORIGINAL = "session_id"  # original
CONVERSATION_ID = "gen_ai.conversation.id"  # semconv gen-ai
TENANT_ID = "tenant.id"  # o11y

# Attribute keys: HTTP and network (semconv http)
HTTP_METHOD = "http.request.method"
HTTP_METHOD_ORIGINAL = "http.request.method_original"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
HTTP_RESEND_COUNT = "http.request.resend_count"
URL_FULL = "url.full"
URL_PATH = "url.path"
URL_QUERY = "url.query"
URL_SCHEME = "url.scheme"
URL_TEMPLATE = "url.template"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
PROTOCOL_VERSION = "network.protocol.version"
PEER_ADDRESS = "network.peer.address"
PEER_PORT = "network.peer.port"
PEER_SERVICE = "service.peer.name"
ERROR_TYPE = "error.type"
ERROR_MESSAGE = "error.message"

# Values of error.type for calls without an answer, or without all of it
ERROR_CONNECT = "connect_error"
ERROR_CONNECTION_LOST = "connection_lost"
ERROR_TIMEOUT = "timeout"
ERROR_UNREADABLE = "unreadable_answer"
ERROR_CANCELLED = "cancelled"
ERROR_CLIENT_GONE = "client_disconnected"
ERROR_CALLER_DEADLINE = "caller_deadline"
"""Of a SERVER span: 504, and its caller had given it (`X-Request-Timeout`) less than half of the
time that requests have.
"""
ERROR_STREAM_BROKEN = "stream_broken"
"""Of a SERVER span: its answer was a stream and ended with an error event."""

# Attribute keys: telemetry about telemetry (semconv otel)
COMPONENT_TYPE = "otel.component.type"
COMPONENT_NAME = "otel.component.name"
RPC_STATUS = "rpc.response.status_code"

# Attribute keys: generation (semconv gen-ai)
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_CHOICES = "gen_ai.request.choice.count"
REQUEST_TOP_P = "gen_ai.request.top_p"
REQUEST_TOP_K = "gen_ai.request.top_k"
REQUEST_SEED = "gen_ai.request.seed"
REQUEST_STOP = "gen_ai.request.stop_sequences"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_ID = "gen_ai.response.id"
FIRST_CHUNK_SECONDS = "gen_ai.response.time_to_first_chunk"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
AUDIO_INPUT_TOKENS = "gen_ai.usage.audio.input_tokens"
AUDIO_OUTPUT_TOKENS = "gen_ai.usage.audio.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"
WORKFLOW_NAME = "gen_ai.workflow.name"
DATA_SOURCE = "gen_ai.data_source.id"
RETRIEVAL_TOP_K = "gen_ai.retrieval.top_k"
RETRIEVAL_DOCUMENTS = "gen_ai.retrieval.documents"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"

# Attribute keys: the original's names for the same, and what only it had
MODEL_NAME = "model.name"
MODEL_DEVICE = "model.device"
MODEL_PARAMETERS = "model.parameters"
PROMPT_TOKENS_ORIGINAL = "llm.usage.prompt_tokens"
COMPLETION_TOKENS_ORIGINAL = "llm.usage.completion_tokens"
TOKENS_PER_SECOND = "tokens_per_second"
BATCH_EFFICIENCY = "batch_efficiency"
"""Over the forward steps the call took part in, until it ended: token slots whose result was used /
token slots computed, of everyone in the steps. Not used are padding, what is computed again after
an eviction, past a stop text, after a caller left, or in a step that failed.
"""

# Attribute keys: ours
COST_USD = "o11y.cost.usd"
COST_SOURCE = "o11y.cost.source"
USAGE_ESTIMATED = "o11y.usage.estimated"
LLM_ATTEMPTS = "o11y.llm.attempts"
LLM_ATTEMPT = "o11y.llm.attempt.number"
ATTEMPT_INPUT_TOKENS = "o11y.llm.attempt.input_tokens"
ATTEMPT_OUTPUT_TOKENS = "o11y.llm.attempt.output_tokens"
ATTEMPT_COST_USD = "o11y.llm.attempt.cost.usd"
PIPELINE_STAGE = "o11y.pipeline.stage"
PIPELINE_STEPS = "o11y.pipeline.steps_completed"
QUEUE_SECONDS = "o11y.queue.seconds"
BATCH_SIZE = "o11y.batch.size"
FIRST_TOKEN_SECONDS = "o11y.time_to_first_token.seconds"
BATCH_MEAN = "o11y.batch.requests.mean"
"""Sequences, of all callers, in the steps the call took part in: their mean."""
BATCH_MOST = "o11y.batch.requests.max"
STEPS = "o11y.batch.steps"
"""Forward steps the call took part in."""
RESULT_COUNT = "o11y.retrieval.result_count"
TOP_SIMILARITY = "o11y.retrieval.top_similarity"
DOCUMENT_COUNT = "o11y.vector.document_count"
EMBEDDING_MODEL = "o11y.embedding.model"
EMBEDDING_DIMENSIONS = "gen_ai.embeddings.dimension.count"  # semconv gen-ai
DB_SYSTEM = "db.system.name"  # semconv db
DB_OPERATION = "db.operation.name"  # semconv db
DB_COLLECTION = "db.collection.name"  # semconv db

# Attribute keys: accelerators (semconv hardware)
HW_ID = "hw.id"
HW_NAME = "hw.name"
HW_TYPE = "hw.type"
HW_VENDOR = "hw.vendor"
HW_PARENT = "hw.parent"
HW_GPU_TASK = "hw.gpu.task"

# Values of o11y.cost.source
COST_FREE = "free"
"""The local inference service, which costs nothing."""
COST_CONFIGURED = "configured"
"""The provider's `prices`."""
COST_PRICE_LIST = "price_list"
"""The price list that is named, or that knows the provider's address."""
COST_MODEL_NAME = "model_name"
"""A guess: nobody knows the address, but the model has the name of one that is sold."""

# Span names
SPAN_WORKFLOW = "full-pipeline"
"""Name of the workflow; the span is `invoke_workflow full-pipeline` (semconv gen-ai)."""

SPAN_CORPUS = "load corpus"

# Event names
EVENT_STAGE_FAILED = "stage failed"
EVENT_ADMITTED = "admitted"
"""The first forward step with a sequence of the call began: its time in the queue is over."""
EVENT_FIRST_TOKEN = "first token"
EVENT_CANCELLED = "cancelled"
"""The call was given up, with `reason`: its client left or its deadline passed."""
EVENT_INFERENCE = "gen_ai.client.inference.operation.details"  # semconv gen-ai
"""Of a log record: the attributes of the call's span, and what was said."""

# Metric labels of our own metrics
LABEL_MODEL = "model"
LABEL_DEVICE = "device"
LABEL_PROVIDER = "provider"
LABEL_OPERATION = "operation"
LABEL_STATUS = "status"
LABEL_STAGE = "stage"
LABEL_COLLECTION = "collection"
LABEL_TYPE = "type"
LABEL_ESTIMATED = "estimated"
LABEL_REASON = "reason"
LABEL_FILTER = "filter"
LABEL_NEXT = "next"
LABEL_SERVICE = "service"
LABEL_INSTANCE = "instance"
LABEL_STATE = "state"
LABEL_RUNS_MODEL = "runs_model"
LABEL_TENANT = "tenant"
"""Of `X-Tenant-Id` at the gateway; bounded, see `identity.Tenants`."""

# Bucket bounds
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
WORKFLOW_SECONDS = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
TOKENS = tuple(4**power for power in range(14))
FAST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
POWERS = tuple(2**power for power in range(11))
UNIT_INTERVAL = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
COSINE_DISTANCE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class Metric:
    """One instrument: its OpenTelemetry name and UCUM unit, and where the name comes from."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    description: str
    labels: tuple[str, ...]
    source: str
    buckets: tuple[float, ...] = ()

    @property
    def services(self) -> tuple[str, ...]:
        """Who emits it."""
        for services, prefixes in _EMITTED_BY.items():
            if self.name.startswith(prefixes):
                return services
        return EVERY_SERVICE


EVERY_SERVICE = ("gateway", "llm-proxy", "vector-svc", "inference-svc")
_EMITTED_BY = {
    ("gateway", "llm-proxy"): ("http.client.",),
    ("gateway",): ("pipeline_", "o11y_service_up", "gen_ai.invoke_workflow."),
    ("llm-proxy", "vector-svc"): ("gen_ai.client.operation.duration",),
    ("llm-proxy",): ("openai_", "gen_ai.client."),
    ("vector-svc",): ("vector_",),
    ("inference-svc",): ("model_", "gen_ai.server.", "hw.", "gpu_", "torch_"),
}


HTTP_SERVER_DURATION = Metric(
    "http.server.request.duration",
    "histogram",
    "s",
    "Duration of a request, until the last byte of its answer.",
    (HTTP_METHOD, URL_SCHEME, PROTOCOL_VERSION, HTTP_ROUTE, HTTP_STATUS, ERROR_TYPE),
    "semconv http/http-metrics#metric-httpserverrequestduration",
    HTTP_SECONDS,
)
HTTP_SERVER_ACTIVE = Metric(
    "http.server.active_requests",
    "gauge",
    "{request}",
    "Requests being answered.",
    (HTTP_METHOD, URL_SCHEME),
    "semconv http/http-metrics#metric-httpserveractive_requests",
)
HTTP_CLIENT_DURATION = Metric(
    "http.client.request.duration",
    "histogram",
    "s",
    "Duration of one attempt of a call to another service, or at an LLM provider.",
    (HTTP_METHOD, URL_TEMPLATE, SERVER_ADDRESS, SERVER_PORT, HTTP_STATUS, ERROR_TYPE, PROVIDER),
    "semconv http/http-metrics#metric-httpclientrequestduration",
    HTTP_SECONDS,
)
PIPELINE_STAGE_DURATION = Metric(
    "pipeline_stage_duration",
    "histogram",
    "s",
    "Duration of one stage of the pipeline.",
    (LABEL_STAGE, LABEL_STATUS),
    "o11y",
    SECONDS,
)
GEN_AI_DURATION = Metric(
    "gen_ai.client.operation.duration",
    "histogram",
    "s",
    "Duration of a call to a model, retries and fallbacks included, or of a search.",
    (OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL, SERVER_ADDRESS, SERVER_PORT, ERROR_TYPE),
    "semconv gen-ai/gen-ai-metrics#metric-gen_aiclientoperationduration",
    SECONDS,
)
GEN_AI_TOKENS = Metric(
    "gen_ai.client.token.usage",
    "histogram",
    "{token}",
    "Tokens of one attempt, as the LLM provider counted them.",
    (TOKEN_TYPE, OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL, SERVER_ADDRESS, SERVER_PORT),
    "semconv gen-ai/gen-ai-metrics#metric-gen_aiclienttokenusage",
    TOKENS,
)
GEN_AI_FIRST_CHUNK = Metric(
    "gen_ai.client.operation.time_to_first_chunk",
    "histogram",
    "s",
    "Time until the first event of a stream.",
    (OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL, SERVER_ADDRESS, SERVER_PORT),
    "semconv gen-ai/gen-ai-metrics#metric-gen_aiclientoperationtime_to_first_chunk",
    SECONDS,
)
GEN_AI_CHUNK = Metric(
    "gen_ai.client.operation.time_per_output_chunk",
    "histogram",
    "s",
    "Time between two arrivals of a stream, after the first.",
    (OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL, SERVER_ADDRESS, SERVER_PORT),
    "semconv gen-ai/gen-ai-metrics#metric-gen_aiclientoperationtime_per_output_chunk",
    SECONDS,
)
GEN_AI_WORKFLOW_DURATION = Metric(
    "gen_ai.invoke_workflow.duration",
    "histogram",
    "s",
    "Duration of a pipeline call; recorded by the GenAI utilities.",
    (WORKFLOW_NAME, ERROR_TYPE),
    "semconv gen-ai/gen-ai-metrics#metric-gen_aiinvoke_workflowduration",
    WORKFLOW_SECONDS,
)
OPENAI_API_DURATION = Metric(
    "openai_api_duration",
    "histogram",
    "s",
    "Duration of a call to a model, by how it ended (ok, error, cancelled).",
    (LABEL_PROVIDER, LABEL_MODEL, LABEL_OPERATION, LABEL_STATUS),
    "original",
    SECONDS,
)
OPENAI_COST = Metric(
    "openai_cost_usd",
    "counter",
    "{USD}",
    "Cost of the LLM provider's work in US dollars, every attempt that is billed included.",
    (LABEL_PROVIDER, LABEL_MODEL, LABEL_OPERATION, LABEL_ESTIMATED, LABEL_TENANT),
    "original",
)
OPENAI_UNPRICED = Metric(
    "openai_unpriced_calls",
    "counter",
    "{call}",
    "Attempts whose price is not known; their cost is in no sum.",
    (LABEL_PROVIDER, LABEL_MODEL, LABEL_OPERATION),
    "o11y",
)
OPENAI_TOKENS = Metric(
    "openai_tokens_used",
    "counter",
    "{token}",
    "Tokens by type: input and output; of these cached, cache_write, audio and reasoning ones.",
    (LABEL_PROVIDER, LABEL_MODEL, LABEL_TYPE, LABEL_ESTIMATED, LABEL_TENANT),
    "original",
)
OPENAI_RETRIES = Metric(
    "openai_retries",
    "counter",
    "{attempt}",
    "Attempts repeated at the same provider, by why the one before failed.",
    (LABEL_PROVIDER, LABEL_REASON),
    "o11y",
)
OPENAI_FALLBACKS = Metric(
    "openai_fallbacks",
    "counter",
    "{call}",
    "Calls handed on from a provider to the next, by why.",
    (LABEL_PROVIDER, LABEL_NEXT, LABEL_REASON),
    "o11y",
)
OPENAI_CIRCUIT = Metric(
    "openai_circuit_state",
    "gauge",
    "",
    "The provider's circuit breaker: 0 closed, 1 half open, 2 open.",
    (LABEL_PROVIDER,),
    "o11y",
)
OPENAI_RUNNING = Metric(
    "openai_calls_running",
    "gauge",
    "{call}",
    "Attempts now at the provider.",
    (LABEL_PROVIDER,),
    "o11y",
)
VECTOR_OPERATION_DURATION = Metric(
    "vector_operation_duration",
    "histogram",
    "s",
    "Duration of an operation of the vector database.",
    (LABEL_OPERATION, LABEL_COLLECTION, LABEL_STATUS),
    "original",
    FAST_SECONDS,
)
VECTOR_SIMILARITY = Metric(
    "vector_search_similarity",
    "histogram",
    "{similarity}",
    "Cosine similarity of each document a search returned; below zero it counts as 0.",
    (LABEL_COLLECTION,),
    "original",
    UNIT_INTERVAL,
)
VECTOR_DISTANCE = Metric(
    "vector_search_distance",
    "histogram",
    "{distance}",
    "Cosine distance of each document a search returned.",
    (LABEL_COLLECTION,),
    "original",
    COSINE_DISTANCE,
)
VECTOR_TOP_SIMILARITY = Metric(
    "vector_search_top_similarity",
    "histogram",
    "{similarity}",
    "Cosine similarity of the best document of each search; below zero it counts as 0.",
    (LABEL_COLLECTION,),
    "o11y",
    UNIT_INTERVAL,
)
VECTOR_EMPTY = Metric(
    "vector_search_empty",
    "counter",
    "{search}",
    "Searches that found no document; `filter` is `caller` where the caller chose one, or `none`.",
    (LABEL_COLLECTION, LABEL_FILTER),
    "o11y",
)
VECTOR_DOCUMENTS = Metric(
    "vector_documents",
    "gauge",
    "{document}",
    "Documents in the collection.",
    (LABEL_COLLECTION,),
    "o11y",
)
MODEL_DURATION = Metric(
    "model_inference_duration",
    "histogram",
    "s",
    "Duration of a generation by the local model, queue included.",
    (LABEL_MODEL, LABEL_DEVICE, LABEL_STATUS),
    "original",
    SECONDS,
)
MODEL_TOKENS = Metric(
    "model_tokens_generated",
    "counter",
    "{token}",
    "Tokens the local model generated.",
    (LABEL_MODEL, LABEL_DEVICE, LABEL_TENANT),
    "original",
)
MODEL_REQUEST_DURATION = Metric(
    "gen_ai.server.request.duration",
    "histogram",
    "s",
    "Duration of a call of a local model, queue included; of a generation until its last token.",
    (OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL, ERROR_TYPE),
    "semconv gen-ai/gen-ai-metrics#metric-gen_aiserverrequestduration",
    SECONDS,
)
MODEL_FIRST_TOKEN = Metric(
    "gen_ai.server.time_to_first_token",
    "histogram",
    "s",
    "Time until the local model's first token, queue included, of calls that succeeded.",
    (OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL),
    "semconv gen-ai/gen-ai-metrics#metric-gen_aiservertime_to_first_token",
    (
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
        *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    ),
)
MODEL_OUTPUT_TOKEN = Metric(
    "gen_ai.server.time_per_output_token",
    "histogram",
    "s",
    "Time for each token of a sequence after its first, of calls that succeeded.",
    (OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL),
    "semconv gen-ai/gen-ai-metrics#metric-gen_aiservertime_per_output_token",
    (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)
MODEL_WAITING = Metric(
    "model_queue_depth",
    "gauge",
    "{sequence}",
    "Sequences that wait for their first step.",
    (LABEL_MODEL, LABEL_DEVICE),
    "o11y",
)
MODEL_RUNNING = Metric(
    "model_requests_running",
    "gauge",
    "{sequence}",
    "Sequences that are being generated.",
    (LABEL_MODEL, LABEL_DEVICE),
    "o11y",
)
MODEL_CACHE_BLOCKS = Metric(
    "model_cache_blocks",
    "gauge",
    "{block}",
    "Blocks the key-value cache has.",
    (LABEL_MODEL, LABEL_DEVICE),
    "o11y",
)
MODEL_CACHE_USED = Metric(
    "model_cache_blocks_used",
    "gauge",
    "{block}",
    "Blocks of the key-value cache that sequences hold; those kept for reuse count as free.",
    (LABEL_MODEL, LABEL_DEVICE),
    "o11y",
)
MODEL_BATCH = Metric(
    "model_batch_size",
    "histogram",
    "{sequence}",
    "Sequences in a forward step.",
    (LABEL_MODEL, LABEL_DEVICE),
    "o11y",
    POWERS,
)
MODEL_REJECTED = Metric(
    "model_requests_rejected",
    "counter",
    "{call}",
    "Calls that were not let in, by why: their Problem's code.",
    (LABEL_MODEL, LABEL_DEVICE, LABEL_REASON),
    "o11y",
)
REJECTED_FOR_ITSELF = (
    *("cache_exceeded", "context_length_exceeded", "empty_prompt", "out_of_time"),
)
"""Reasons of MODEL_REJECTED that lie in the call: its prompt, or the time its caller gave it. They
turn nobody else away.
"""
MODEL_CANCELLED = Metric(
    "model_requests_cancelled",
    "counter",
    "{call}",
    "Calls given up, by why (cancelled, out_of_time) and whether they waited or ran.",
    (LABEL_MODEL, LABEL_DEVICE, LABEL_REASON, LABEL_STATUS),
    "o11y",
)
MODEL_FAILURES = Metric(
    "model_engine_failures",
    "counter",
    "{failure}",
    "Forward steps that failed, by their error's class.",
    (LABEL_MODEL, LABEL_DEVICE, ERROR_TYPE),
    "o11y",
)
SERVICE_UP = Metric(
    "o11y_service_up",
    "gauge",
    "",
    "Whether a service behind the gateway answered this scrape; only on the gateway's /metrics.",
    (LABEL_SERVICE, LABEL_INSTANCE),
    "o11y",
)
CPU_USAGE = Metric(
    "cpu_usage",
    "gauge",
    "%",
    "CPU time of this process since the last reading, in percent of one core.",
    (),
    "original",
)
MEMORY_USED = Metric(
    "memory_used",
    "gauge",
    "By",
    "Resident memory of this process.",
    (),
    "original",
)
_COMPONENT = (COMPONENT_TYPE, COMPONENT_NAME)
_EXPORTER = (*_COMPONENT, SERVER_ADDRESS, SERVER_PORT)


def _sdk(
    name: str,
    kind: Literal["counter", "histogram", "gauge"],
    unit: str,
    description: str,
    labels: tuple[str, ...],
    buckets: tuple[float, ...] = (),
) -> Metric:
    source = f"semconv otel/sdk-metrics#metric-{name.replace('.', '')}"
    return Metric(f"otel.sdk.{name}", kind, unit, description, labels, source, buckets)


SPANS_PROCESSED = _sdk(
    "processor.span.processed",
    "counter",
    "{span}",
    "Spans handed to the exporter; with error.type those dropped before, as from a full queue.",
    (*_COMPONENT, ERROR_TYPE),
)
LOGS_PROCESSED = _sdk(
    "processor.log.processed",
    "counter",
    "{log_record}",
    "Log records handed to the exporter; with error.type those dropped before.",
    (*_COMPONENT, ERROR_TYPE),
)
SPANS_EXPORTED = _sdk(
    "exporter.span.exported",
    "counter",
    "{span}",
    "Spans whose export has ended; with error.type those that nobody took. Over HTTP those that "
    "were answered by an error status have none: see otel.sdk.exporter.operation.duration.",
    (*_EXPORTER, ERROR_TYPE),
)
LOGS_EXPORTED = _sdk(
    "exporter.log.exported",
    "counter",
    "{log_record}",
    "The same of log records.",
    (*_EXPORTER, ERROR_TYPE),
)
POINTS_EXPORTED = _sdk(
    "exporter.metric_data_point.exported",
    "counter",
    "{data_point}",
    "The same of metric data points.",
    (*_EXPORTER, ERROR_TYPE),
)
EXPORT_DURATION = _sdk(
    "exporter.operation.duration",
    "histogram",
    "s",
    "Duration of an export, all its attempts included; with the status that was answered when it "
    "failed.",
    (*_EXPORTER, ERROR_TYPE, HTTP_STATUS, RPC_STATUS),
    HTTP_SECONDS,
)
COLLECTION_DURATION = _sdk(
    "metric_reader.collection.duration",
    "histogram",
    "s",
    "Duration of reading all metrics.",
    _COMPONENT,
    FAST_SECONDS,
)
SPANS_WAITING = _sdk(
    "processor.span.queue.size", "gauge", "{span}", "Spans that wait to be exported.", _COMPONENT
)
SPANS_ROOM = _sdk(
    "processor.span.queue.capacity", "gauge", "{span}", "Most spans that may wait.", _COMPONENT
)
LOGS_WAITING = _sdk(
    "processor.log.queue.size",
    "gauge",
    "{log_record}",
    "Log records that wait to be exported.",
    _COMPONENT,
)
LOGS_ROOM = _sdk(
    "processor.log.queue.capacity",
    "gauge",
    "{log_record}",
    "Most log records that may wait.",
    _COMPONENT,
)
SPANS_IN_FLIGHT = _sdk(
    "exporter.span.inflight", "gauge", "{span}", "Spans being exported.", _EXPORTER
)
LOGS_IN_FLIGHT = _sdk(
    "exporter.log.inflight", "gauge", "{log_record}", "Log records being exported.", _EXPORTER
)
POINTS_IN_FLIGHT = _sdk(
    "exporter.metric_data_point.inflight",
    "gauge",
    "{data_point}",
    "Metric data points being exported.",
    _EXPORTER,
)

_HW = (HW_ID, HW_NAME, HW_TYPE, HW_VENDOR, HW_PARENT)
_GPU = (LABEL_DEVICE, LABEL_RUNS_MODEL, HW_ID, HW_NAME)


def _hw(name: str, unit: str, description: str, clause: str, *labels: str) -> Metric:
    source = f"semconv hardware/{clause}"
    return Metric(name, "gauge", unit, description, (*_HW, *labels), source)


HW_GPU_MEMORY_USAGE = _hw(
    "hw.gpu.memory.usage", "By", "GPU memory used.", "gpu#metric-hwgpumemoryusage"
)
HW_GPU_MEMORY_LIMIT = _hw(
    "hw.gpu.memory.limit", "By", "Size of the GPU memory.", "gpu#metric-hwgpumemorylimit"
)
HW_GPU_MEMORY_UTILIZATION = _hw(
    "hw.gpu.memory.utilization",
    "1",
    "Fraction of GPU memory used.",
    "gpu#metric-hwgpumemoryutilization",
)
HW_GPU_UTILIZATION = _hw(
    "hw.gpu.utilization",
    "1",
    "Fraction of time in which the GPU computed.",
    "gpu#metric-hwgpuutilization",
    HW_GPU_TASK,
)
HW_TEMPERATURE = _hw(
    "hw.temperature", "Cel", "Temperature of the GPU.", "temperature#metric-hwtemperature"
)
HW_POWER = _hw("hw.power", "W", "Power the GPU draws.", "common#metric-hwpower")
HW_ENERGY = Metric(
    "hw.energy",
    "counter",
    "J",
    "Energy the GPU has used since its driver was loaded.",
    _HW,
    "semconv hardware/common#metric-hwenergy",
)
GPU_MEMORY_USED = Metric(
    "gpu_memory_used", "gauge", "By", "GPU memory used, by all processes.", _GPU, "original"
)
GPU_MEMORY_TOTAL = Metric(
    "gpu_memory_total", "gauge", "By", "Size of the GPU memory.", _GPU, "original"
)
GPU_UTILIZATION = Metric(
    "gpu_utilization", "gauge", "%", "Time in which the GPU computed, in percent.", _GPU, "original"
)
GPU_TEMPERATURE = Metric(
    "gpu_temperature", "gauge", "Cel", "Temperature of the GPU.", _GPU, "original"
)
GPU_POWER = Metric("gpu_power", "gauge", "W", "Power the GPU draws.", _GPU, "original")
GPU_PROCESS_MEMORY = Metric(
    "gpu_process_memory_used", "gauge", "By", "GPU memory this process uses.", _GPU, "o11y"
)
TORCH_MEMORY = Metric(
    "torch_memory",
    "gauge",
    "By",
    "Memory of PyTorch's allocator by state: allocated by tensors, reserved from the driver of the "
    "GPU, and the limit the driver recommends (MPS).",
    (LABEL_DEVICE, LABEL_STATE),
    "o11y",
)
TORCH_RETRIES = Metric(
    "torch_allocation_retries",
    "counter",
    "{retry}",
    "Allocations on the GPU that failed until PyTorch had given back what it kept unused.",
    (LABEL_DEVICE,),
    "o11y",
)
TORCH_OUT_OF_MEMORY = Metric(
    "torch_out_of_memory",
    "counter",
    "{error}",
    "Allocations on the GPU that failed for good.",
    (LABEL_DEVICE,),
    "o11y",
)

METRICS = tuple(value for value in globals().copy().values() if isinstance(value, Metric))
"""Every metric of our own, and those the GenAI utilities write."""


@dataclass(frozen=True)
class Attribute:
    """A key of spans, events or metrics: what it says, and where the name comes from."""

    key: str
    source: str
    note: str


@dataclass(frozen=True)
class SpanName:
    """The spans of one sort: their names, whose they are, and the keys they may have.

    In `pattern`, words in braces stand for what differs; every span may have `IDENTITY` as well.
    """

    pattern: str
    kind: Literal["SERVER", "CLIENT", "INTERNAL"]
    services: tuple[str, ...]
    source: str
    note: str
    attributes: tuple[str, ...]
    events: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """Something that happened within a span."""

    name: str
    note: str
    attributes: tuple[str, ...] = ()


_SPAN_HTTP = "semconv http/http-spans"
_SPAN_GEN_AI = "semconv gen-ai/gen-ai-spans"
_ORIGINAL = "original"

ATTRIBUTES = (
    Attribute(USER_ID, "semconv registry/user", "The user a request is for."),
    Attribute(SESSION_ID, "semconv registry/session", "The user's session."),
    Attribute(USER_ID_ORIGINAL, _ORIGINAL, "As `user.id`."),
    Attribute(SESSION_ID_ORIGINAL, _ORIGINAL, "As `session.id`."),
    Attribute(CONVERSATION_ID, _SPAN_GEN_AI, "As `session.id`."),
    Attribute(TENANT_ID, "o11y", "The tenant: `X-Tenant-Id` at the gateway."),
    Attribute(HTTP_METHOD, _SPAN_HTTP, "Method, `_OTHER` for an unusual one."),
    Attribute(HTTP_METHOD_ORIGINAL, _SPAN_HTTP, "The unusual method."),
    Attribute(
        COMPONENT_TYPE,
        "semconv otel/sdk-metrics",
        "What spans or log records wait in, what sends them, or what reads the metrics.",
    ),
    Attribute(COMPONENT_NAME, "semconv otel/sdk-metrics", "Which of these in the process."),
    Attribute(RPC_STATUS, "semconv registry/rpc", "Status of gRPC that was answered."),
    Attribute(HTTP_ROUTE, _SPAN_HTTP, "The route that matched."),
    Attribute(HTTP_STATUS, _SPAN_HTTP, "Status of the answer, if there was one."),
    Attribute(HTTP_RESEND_COUNT, _SPAN_HTTP, "How often this was tried before, if it was."),
    Attribute(URL_FULL, _SPAN_HTTP, "Address that was called, without credentials."),
    Attribute(URL_PATH, _SPAN_HTTP, "Path that was asked for."),
    Attribute(URL_QUERY, _SPAN_HTTP, "Names of the query's parameters; values are redacted."),
    Attribute(URL_SCHEME, _SPAN_HTTP, "`http` or `https`."),
    Attribute(URL_TEMPLATE, _SPAN_HTTP, "Path that was called: it holds no ids."),
    Attribute(SERVER_ADDRESS, _SPAN_HTTP, "Host; of a call the replica's or the provider's."),
    Attribute(SERVER_PORT, _SPAN_HTTP, "Its port."),
    Attribute(PROTOCOL_VERSION, _SPAN_HTTP, "Version of HTTP."),
    Attribute(PEER_ADDRESS, _SPAN_HTTP, "Address the connection goes to."),
    Attribute(PEER_PORT, _SPAN_HTTP, "Port the connection goes to, unless it is the scheme's."),
    Attribute(PEER_SERVICE, "semconv registry/service", "Name of the service that was called."),
    Attribute(ERROR_TYPE, "semconv registry/error", "Why it failed: a status, code or class."),
    Attribute(ERROR_MESSAGE, "semconv registry/error", "Why it failed, as a sentence."),
    Attribute(OPERATION, _SPAN_GEN_AI, "`chat`, `embeddings`, `retrieval` …"),
    Attribute(PROVIDER, _SPAN_GEN_AI, "Who does the work: `openai`, `o11y-local`, `chroma` …"),
    Attribute(REQUEST_MODEL, _SPAN_GEN_AI, "The model asked for."),
    Attribute(RESPONSE_MODEL, _SPAN_GEN_AI, "The model that answered."),
    Attribute(REQUEST_MAX_TOKENS, _SPAN_GEN_AI, "Most tokens to generate."),
    Attribute(REQUEST_TEMPERATURE, _SPAN_GEN_AI, "Temperature."),
    Attribute(REQUEST_CHOICES, _SPAN_GEN_AI, "Answers asked for."),
    Attribute(REQUEST_TOP_P, _SPAN_GEN_AI, "Nucleus sampling."),
    Attribute(REQUEST_TOP_K, _SPAN_GEN_AI, "Most likely tokens to draw from."),
    Attribute(REQUEST_SEED, _SPAN_GEN_AI, "Seed of the draws."),
    Attribute(REQUEST_STOP, _SPAN_GEN_AI, "Texts that end an answer."),
    Attribute(REQUEST_STREAM, _SPAN_GEN_AI, "Whether the answer is streamed; absent if not."),
    Attribute(RESPONSE_ID, _SPAN_GEN_AI, "The provider's id of its answer."),
    Attribute(FIRST_CHUNK_SECONDS, _SPAN_GEN_AI, "Seconds until a stream's first event."),
    Attribute(FINISH_REASONS, _SPAN_GEN_AI, "Why each answer ended."),
    Attribute(INPUT_TOKENS, _SPAN_GEN_AI, "Tokens of the prompt, of every billed attempt."),
    Attribute(OUTPUT_TOKENS, _SPAN_GEN_AI, "Tokens generated, of every billed attempt."),
    Attribute(CACHE_READ_TOKENS, _SPAN_GEN_AI, "Input tokens the provider had cached."),
    Attribute(CACHE_WRITE_TOKENS, "o11y", "Input tokens the provider put in its cache."),
    Attribute(REASONING_TOKENS, _SPAN_GEN_AI, "Output tokens of reasoning."),
    Attribute(AUDIO_INPUT_TOKENS, "o11y", "Input tokens of audio."),
    Attribute(AUDIO_OUTPUT_TOKENS, "o11y", "Output tokens of audio."),
    Attribute(TOKEN_TYPE, "semconv gen-ai/gen-ai-metrics", "`input` or `output`."),
    Attribute(WORKFLOW_NAME, _SPAN_GEN_AI, "Name of the workflow."),
    Attribute(DATA_SOURCE, _SPAN_GEN_AI, "Collection that was searched."),
    Attribute(RETRIEVAL_TOP_K, _SPAN_GEN_AI, "Most documents to return."),
    Attribute(RETRIEVAL_DOCUMENTS, _SPAN_GEN_AI, "Ids and scores, JSON; with capture on spans."),
    Attribute(INPUT_MESSAGES, _SPAN_GEN_AI, "The conversation, JSON; only with capture."),
    Attribute(OUTPUT_MESSAGES, _SPAN_GEN_AI, "The answers, JSON; only with capture."),
    Attribute(SYSTEM_INSTRUCTIONS, _SPAN_GEN_AI, "The instructions, JSON; only with capture."),
    Attribute(MODEL_NAME, _ORIGINAL, "The local model."),
    Attribute(MODEL_DEVICE, _ORIGINAL, "Device it runs on."),
    Attribute(MODEL_PARAMETERS, _ORIGINAL, "Number of its parameters."),
    Attribute(PROMPT_TOKENS_ORIGINAL, _ORIGINAL, "As `gen_ai.usage.input_tokens`."),
    Attribute(COMPLETION_TOKENS_ORIGINAL, _ORIGINAL, "As `gen_ai.usage.output_tokens`."),
    Attribute(TOKENS_PER_SECOND, _ORIGINAL, "Tokens generated a second, of the whole call."),
    Attribute(BATCH_EFFICIENCY, _ORIGINAL, "Part of the token slots computed that was used."),
    Attribute(COST_USD, "o11y", "Cost in US dollars, that of all attempts together."),
    Attribute(
        COST_SOURCE,
        "o11y",
        "Where its price is from: `price_list`, `configured`, `free` (the local model), or "
        "`model_name`, a guess by the model's name at an address that no list knows.",
    ),
    Attribute(USAGE_ESTIMATED, "o11y", "Whether tokens are an estimate; absent if not."),
    Attribute(LLM_ATTEMPTS, "o11y", "Attempts the call took."),
    Attribute(LLM_ATTEMPT, "o11y", "Which attempt of the call this is, from 1."),
    Attribute(ATTEMPT_INPUT_TOKENS, "o11y", "Input tokens that this attempt is billed."),
    Attribute(ATTEMPT_OUTPUT_TOKENS, "o11y", "Output tokens that this attempt is billed."),
    Attribute(ATTEMPT_COST_USD, "o11y", "What they cost in US dollars."),
    Attribute(PIPELINE_STAGE, "o11y", "Stage of the pipeline this belongs to."),
    Attribute(PIPELINE_STEPS, "o11y", "Stages that worked."),
    Attribute(QUEUE_SECONDS, "o11y", "Seconds until the work began."),
    Attribute(BATCH_SIZE, "o11y", "Texts in the batch, of all callers."),
    Attribute(FIRST_TOKEN_SECONDS, "o11y", "Seconds until the first token."),
    Attribute(BATCH_MEAN, "o11y", "Sequences in the call's steps, of all callers: their mean."),
    Attribute(BATCH_MOST, "o11y", "The same: the most."),
    Attribute(STEPS, "o11y", "Forward steps the call took part in."),
    Attribute(RESULT_COUNT, "o11y", "Documents found."),
    Attribute(TOP_SIMILARITY, "o11y", "Cosine similarity of the best one."),
    Attribute(DOCUMENT_COUNT, "o11y", "Texts to embed or to store."),
    Attribute(EMBEDDING_MODEL, "o11y", "Model the vectors come from."),
    Attribute(EMBEDDING_DIMENSIONS, _SPAN_GEN_AI, "Length of a vector."),
    Attribute(DB_SYSTEM, "semconv db/database-spans", "`chroma`."),
    Attribute(DB_OPERATION, "semconv db/database-spans", "What was done."),
    Attribute(DB_COLLECTION, "semconv db/database-spans", "Collection it was done to."),
    Attribute(HW_ID, "semconv hardware/common", "UUID of the GPU."),
    Attribute(HW_NAME, "semconv hardware/common", "Its name."),
    Attribute(HW_TYPE, "semconv hardware/common", "`gpu`."),
    Attribute(HW_VENDOR, "semconv hardware/common", "Its maker."),
    Attribute(HW_PARENT, "semconv hardware/common", "UUID of the GPU this is a part of."),
    Attribute(HW_GPU_TASK, "semconv hardware/gpu", "`general`."),
    Attribute(LABEL_REASON, "o11y", "Why a call was given up."),
    Attribute(LABEL_STATUS, "o11y", "Whether it waited or ran."),
)

IDENTITY = (
    *(USER_ID, SESSION_ID, USER_ID_ORIGINAL, SESSION_ID_ORIGINAL, CONVERSATION_ID, TENANT_ID),
)

_SAID = (INPUT_MESSAGES, OUTPUT_MESSAGES, SYSTEM_INSTRUCTIONS)

EVENTS = (
    Event(EVENT_STAGE_FAILED, "A stage failed; the others go on.", (PIPELINE_STAGE, ERROR_MESSAGE)),
    Event(EVENT_ADMITTED, "The first forward step of the call began."),
    Event(EVENT_FIRST_TOKEN, "The first token is there."),
    Event(EVENT_CANCELLED, "The call was given up.", (LABEL_REASON, LABEL_STATUS)),
    Event(
        EVENT_INFERENCE,
        "A log record with the attributes of a call's span; only with capture in events.",
        _SAID,
    ),
)

_FAILED = (ERROR_TYPE, ERROR_MESSAGE)
_SERVER = (
    *(HTTP_METHOD, HTTP_METHOD_ORIGINAL, HTTP_ROUTE, HTTP_STATUS, URL_PATH, URL_QUERY),
    *(URL_SCHEME, SERVER_ADDRESS, SERVER_PORT, PROTOCOL_VERSION, *_FAILED),
)
_CALLED = (OPERATION, PROVIDER, REQUEST_MODEL, ERROR_TYPE)
_MODEL = (*_CALLED, RESPONSE_MODEL)
_ASKED = (
    *(REQUEST_MAX_TOKENS, REQUEST_TEMPERATURE, REQUEST_CHOICES, REQUEST_TOP_P),
    *(REQUEST_SEED, REQUEST_STREAM, FINISH_REASONS),
)
_USED = (INPUT_TOKENS, OUTPUT_TOKENS, PROMPT_TOKENS_ORIGINAL, COMPLETION_TOKENS_ORIGINAL)

SPANS = (
    SpanName(
        "{method} {route}",
        "SERVER",
        EVERY_SERVICE,
        f"{_SPAN_HTTP}#http-server",
        "A request, until the last byte of its answer; only the method where no route matched.",
        _SERVER,
    ),
    SpanName(
        "{method} {path}",
        "CLIENT",
        ("gateway", "llm-proxy"),
        f"{_SPAN_HTTP}#http-client",
        "One attempt of a call to another service or an LLM provider; a stream's lasts until it "
        "ends.",
        (
            *(HTTP_METHOD, HTTP_STATUS, HTTP_RESEND_COUNT, URL_FULL, URL_TEMPLATE),
            *(SERVER_ADDRESS, SERVER_PORT, PEER_ADDRESS, PEER_PORT, PROTOCOL_VERSION),
            *(PEER_SERVICE, PIPELINE_STAGE, ERROR_TYPE, PROVIDER, REQUEST_MODEL, LLM_ATTEMPT),
            *(ATTEMPT_INPUT_TOKENS, ATTEMPT_OUTPUT_TOKENS, ATTEMPT_COST_USD),
        ),
    ),
    SpanName(
        f"invoke_workflow {SPAN_WORKFLOW}",
        "INTERNAL",
        ("gateway",),
        f"{_SPAN_GEN_AI}#invoke-workflow-span",
        "A pipeline call.",
        (OPERATION, WORKFLOW_NAME, PIPELINE_STEPS, COST_USD, ERROR_TYPE),
        (EVENT_STAGE_FAILED,),
    ),
    SpanName(
        SPAN_CORPUS,
        "INTERNAL",
        ("gateway",),
        "o11y",
        "The packaged texts are stored, at start.",
        (),
    ),
    SpanName(
        "{operation} {model}",
        "CLIENT",
        ("llm-proxy",),
        f"{_SPAN_GEN_AI}#inference",
        "A call to a model, retries and fallbacks included; a stream's lasts until it ends.",
        (
            *(*_MODEL, *_ASKED, *_USED, RESPONSE_ID, FIRST_CHUNK_SECONDS, CACHE_READ_TOKENS),
            *(CACHE_WRITE_TOKENS, REASONING_TOKENS, AUDIO_INPUT_TOKENS, AUDIO_OUTPUT_TOKENS),
            *(SERVER_ADDRESS, SERVER_PORT, LLM_ATTEMPTS),
            *(COST_USD, COST_SOURCE, USAGE_ESTIMATED, *_SAID),
        ),
    ),
    SpanName(
        "{operation} {model}",
        "INTERNAL",
        ("inference-svc",),
        f"{_SPAN_GEN_AI}#inference",
        "A generation by the local model, queue included.",
        (
            *(*_MODEL, *_ASKED, *_USED, REQUEST_TOP_K, REQUEST_STOP),
            *(MODEL_NAME, MODEL_DEVICE, MODEL_PARAMETERS, TOKENS_PER_SECOND, BATCH_EFFICIENCY),
            *(STEPS, BATCH_MEAN, BATCH_MOST, QUEUE_SECONDS, FIRST_TOKEN_SECONDS, *_SAID),
        ),
        (EVENT_ADMITTED, EVENT_FIRST_TOKEN, EVENT_CANCELLED),
    ),
    SpanName(
        "embeddings {model}",
        "INTERNAL",
        ("inference-svc",),
        f"{_SPAN_GEN_AI}#embeddings",
        "Embeddings by the local model, queue included.",
        (
            *(*_CALLED, MODEL_NAME, MODEL_DEVICE, INPUT_TOKENS, PROMPT_TOKENS_ORIGINAL),
            *(DOCUMENT_COUNT, EMBEDDING_DIMENSIONS, QUEUE_SECONDS, BATCH_SIZE),
        ),
    ),
    SpanName(
        "retrieval {collection}",
        "CLIENT",
        ("vector-svc",),
        f"{_SPAN_GEN_AI}#retrievals",
        "A search in Chroma.",
        (
            *(*_CALLED, DB_SYSTEM, DATA_SOURCE, RETRIEVAL_TOP_K, RETRIEVAL_DOCUMENTS),
            *(RESULT_COUNT, TOP_SIMILARITY),
        ),
    ),
    SpanName(
        "upsert {collection}",
        "CLIENT",
        ("vector-svc",),
        "semconv db/database-spans",
        "Documents are stored in Chroma.",
        (DB_SYSTEM, DB_OPERATION, DB_COLLECTION, EMBEDDING_MODEL, DOCUMENT_COUNT, ERROR_TYPE),
    ),
)
