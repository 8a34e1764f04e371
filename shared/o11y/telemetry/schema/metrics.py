"""Metrics: what each says, its labels and buckets, and which services emit it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from o11y.telemetry.schema.attributes import *

EVERY_SERVICE = ("gateway", "llm-proxy", "vector-svc", "inference-svc")

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
AGENT_SECONDS = tuple(0.1 * 2**power for power in range(13))
FAST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
TO_FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, *HTTP_SECONDS[5:])
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = tuple(4**power for power in range(14))
POWERS = tuple(2**power for power in range(11))
UNIT_INTERVAL = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
COSINE_DISTANCE = (*UNIT_INTERVAL, 1.5, 2.0)

Kind = Literal["counter", "updowncounter", "histogram", "gauge"]


@dataclass(frozen=True)
class Metric:
    """One instrument: its OpenTelemetry name and UCUM unit, and where the name comes from."""

    kind: Kind
    name: str
    unit: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...]
    services: tuple[str, ...]
    source: str
    description: str


@dataclass(frozen=True)
class Emitted:
    """A group of metrics: the services that emit them, their source, and the first of their labels.

    Of a source that is a page of the semantic conventions, each has its clause. What an instrument
    is called with describes it: `counter(name, unit, *labels)(description)` is the metric.
    """

    services: tuple[str, ...]
    source: str = "o11y"
    labels: tuple[str, ...] = ()

    def counter(self, name: str, unit: str, *labels: str) -> Callable[[str], Metric]:
        return self._metric("counter", name, unit, labels, ())

    def updowncounter(self, name: str, unit: str, *labels: str) -> Callable[[str], Metric]:
        return self._metric("updowncounter", name, unit, labels, ())

    def gauge(self, name: str, unit: str, *labels: str) -> Callable[[str], Metric]:
        return self._metric("gauge", name, unit, labels, ())

    def histogram(
        self, name: str, unit: str, buckets: tuple[float, ...], *labels: str
    ) -> Callable[[str], Metric]:
        return self._metric("histogram", name, unit, labels, buckets)

    def _metric(
        self, kind: Kind, name: str, unit: str, own: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Callable[[str], Metric]:
        clause = f"#metric-{name.replace('.', '')}" if self.source.startswith("semconv") else ""
        labels, source = (*self.labels, *own), f"{self.source}{clause}"
        return partial(Metric, kind, name, unit, labels, buckets, self.services, source)


_GEN_AI = "semconv gen-ai/gen-ai-metrics"
_MODEL = (OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL)
_LOCAL = (LABEL_MODEL, LABEL_DEVICE)
_PEER = (SERVER_ADDRESS, SERVER_PORT)
_GPU = (LABEL_DEVICE, LABEL_RUNS_MODEL, HW_ID, HW_NAME)
_HW = (HW_ID, HW_NAME, HW_TYPE, HW_VENDOR, HW_PARENT)
_LLM_PROXY, _VECTOR_SVC, _INFERENCE_SVC = ("llm-proxy",), ("vector-svc",), ("inference-svc",)

_http = Emitted(EVERY_SERVICE, "semconv http/http-metrics")
HTTP_SERVER_DURATION = _http.histogram(
    "http.server.request.duration",
    "s",
    HTTP_SECONDS,
    *(HTTP_METHOD, URL_SCHEME, PROTOCOL_VERSION, HTTP_ROUTE, HTTP_STATUS, ERROR_TYPE),
)("Duration of a request, until the last byte of its answer.")
HTTP_SERVER_ACTIVE = _http.updowncounter(
    "http.server.active_requests", "{request}", HTTP_METHOD, URL_SCHEME
)("Requests being answered.")

_http_client = Emitted(("gateway", *_LLM_PROXY), "semconv http/http-metrics")
HTTP_CLIENT_DURATION = _http_client.histogram(
    "http.client.request.duration",
    "s",
    HTTP_SECONDS,
    *(HTTP_METHOD, URL_TEMPLATE, *_PEER, HTTP_STATUS, ERROR_TYPE, LABEL_PROVIDER),
)("Duration of one attempt of a call to another service, or at an LLM provider.")

_admission = Emitted(("gateway", *_LLM_PROXY, *_INFERENCE_SVC))
ADMISSION_REFUSED = _admission.counter("admission_refused", "{call}", LABEL_REASON, LABEL_TENANT)(
    "Calls that were refused for their API key or for want of one, for a limit or for a budget."
)

_gateway = Emitted(("gateway",))
PIPELINE_STAGE_DURATION = _gateway.histogram(
    "pipeline_stage_duration", "s", SECONDS, LABEL_STAGE, LABEL_STATUS
)("Duration of one stage of the pipeline.")
_spending = Emitted(("gateway",), labels=(LABEL_TENANT, LABEL_KEY))
SPEND = _spending.gauge("spend_usd", "{USD}", LABEL_PERIOD)(
    "Spent by a key, or by a tenant (`key` is `_all`), on this day, in this month (UTC) and in all."
)
BUDGET_LIMIT = _spending.gauge("budget_limit_usd", "{USD}", LABEL_PERIOD)(
    "Budget of a key, or of a tenant (`key` is `_all`)."
)
BUDGET_REMAINING = _spending.gauge("budget_remaining_usd", "{USD}", LABEL_PERIOD)(
    "Left of a budget in its period; below 0 where a call cost more than could be known."
)
BUDGET_RESERVED = _spending.gauge("budget_reserved_usd", "{USD}")(
    "Reserved of the budgets of a key, or of a tenant (`key` is `_all`), by calls that run."
)
SERVICE_UP = _gateway.gauge("o11y_service_up", "", LABEL_SERVICE, LABEL_INSTANCE)(
    "Whether a service behind the gateway answered this scrape; only on the gateway's /metrics."
)
RATE_LIMIT_STORE_UP = _gateway.gauge("rate_limit_store_up", "")(
    "Whether the store of the limits answers; 1 where it is this process's memory."
)

_ledger = Emitted((*_LLM_PROXY, *_INFERENCE_SVC))
LEDGER_QUEUE = _ledger.gauge("ledger_queue_rows", "{row}")(
    "Rows of the ledger that wait in the journal for the database."
)
LEDGER_LAG = _ledger.gauge("ledger_lag", "s")(
    "Age of the oldest row of the ledger that waits for the database."
)
LEDGER_RECOVERED = _ledger.counter("ledger_recovered", "{row}")(
    "Rows of the ledger that processes had left which ended before they could write them."
)

_inference = Emitted(_LLM_PROXY, "semconv gen-ai/client-inference", (*_MODEL, *_PEER))
_tokens = Emitted(_LLM_PROXY, "semconv gen-ai/gen-ai-token-metrics", (*_MODEL, *_PEER))
_embeddings = Emitted(_LLM_PROXY, "semconv gen-ai/client-embeddings", (*_MODEL, *_PEER))
GEN_AI_INFERENCE_DURATION = _inference.histogram(
    "gen_ai.client.inference.duration", "s", SECONDS, ERROR_TYPE
)("Duration of a chat or text completion, retries and fallbacks included.")
GEN_AI_FIRST_CHUNK = _inference.histogram(
    "gen_ai.client.inference.time_to_first_chunk", "s", SECONDS
)("Time until the first event of a stream.")
GEN_AI_CHUNK = _inference.histogram("gen_ai.client.inference.time_per_output_chunk", "s", SECONDS)(
    "Time between two arrivals of a stream, after the first; only with `LLM_TIME_CHUNKS`."
)
GEN_AI_INPUT_TOKENS = _tokens.histogram(
    "gen_ai.client.inference.operation.input_tokens", "{token}", TOKENS, ERROR_TYPE
)("Input tokens of a chat or text completion, all attempts', as the provider counted them.")
GEN_AI_OUTPUT_TOKENS = _tokens.histogram(
    "gen_ai.client.inference.operation.output_tokens", "{token}", TOKENS, ERROR_TYPE
)("Output tokens of a chat or text completion, all attempts', as the provider counted them.")
GEN_AI_USAGE_INPUT = _tokens.counter(
    "gen_ai.client.inference.usage.input_tokens", "{token}", TOKEN_MODALITY
)("Input tokens of attempts, as the provider counted them, cached ones included.")
GEN_AI_USAGE_OUTPUT = _tokens.counter(
    "gen_ai.client.inference.usage.output_tokens", "{token}", TOKEN_MODALITY
)("Output tokens of attempts, as the provider counted them, those of reasoning included.")
GEN_AI_USAGE_CACHE_READ = _tokens.counter(
    "gen_ai.client.inference.usage.cache_read.input_tokens", "{token}", TOKEN_MODALITY
)("Input tokens of attempts that the provider had cached.")
GEN_AI_USAGE_CACHE_WRITE = _tokens.counter(
    "gen_ai.client.inference.usage.cache_write.input_tokens", "{token}", TOKEN_MODALITY
)("Input tokens of attempts that the provider put in its cache.")
GEN_AI_USAGE_REASONING = _tokens.counter(
    "gen_ai.client.inference.usage.reasoning.output_tokens", "{token}", TOKEN_MODALITY
)("Output tokens of attempts that the model spent on reasoning.")
GEN_AI_EMBEDDINGS_DURATION = _embeddings.histogram(
    "gen_ai.client.embeddings.duration", "s", SECONDS, ERROR_TYPE
)("Duration of a call for embeddings, retries and fallbacks included.")
GEN_AI_EMBEDDINGS_TOKENS = _embeddings.histogram(
    "gen_ai.client.embeddings.operation.input_tokens", "{token}", TOKENS
)("Input tokens of a call for embeddings, all attempts', as the provider counted them.")
GEN_AI_RETRIEVAL_DURATION = Emitted(
    _VECTOR_SVC, _GEN_AI, (OPERATION, PROVIDER, REQUEST_MODEL)
).histogram("gen_ai.client.operation.duration", "s", SECONDS, ERROR_TYPE)("Duration of a search.")
GEN_AI_AGENT_DURATION = Emitted(("gateway",), _GEN_AI).histogram(
    "gen_ai.invoke_agent.duration", "s", AGENT_SECONDS, AGENT_NAME, ERROR_TYPE
)("Duration of a pipeline call.")

_openai_original = Emitted(_LLM_PROXY, "original", (LABEL_PROVIDER,))
_openai = Emitted(_LLM_PROXY, labels=(LABEL_PROVIDER,))
OPENAI_API_DURATION = _openai_original.histogram(
    "openai_api_duration", "s", SECONDS, LABEL_MODEL, LABEL_OPERATION, LABEL_STATUS
)("Duration of a call to a model, by how it ended (ok, error, cancelled).")
OPENAI_COST = _openai_original.counter(
    "openai_cost_usd", "{USD}", LABEL_MODEL, LABEL_OPERATION, LABEL_ESTIMATED, LABEL_TENANT
)("Cost of the LLM provider's work in US dollars, every attempt that is billed included.")
OPENAI_UNPRICED = _openai.counter("openai_unpriced_calls", "{call}", LABEL_MODEL, LABEL_OPERATION)(
    "Attempts whose price is not known; their cost is in no sum."
)
OPENAI_TOKENS = _openai_original.counter(
    "openai_tokens_used", "{token}", LABEL_MODEL, LABEL_TYPE, LABEL_ESTIMATED, LABEL_TENANT
)("Tokens by type: input and output; of these cached, cache_write, audio and reasoning ones.")
OPENAI_RETRIES = _openai.counter("openai_retries", "{attempt}", LABEL_REASON)(
    "Attempts repeated at the same provider, by why the one before failed."
)
OPENAI_FALLBACKS = _openai.counter("openai_fallbacks", "{call}", LABEL_NEXT, LABEL_REASON)(
    "Calls handed on from a provider to the next, by why."
)
OPENAI_CIRCUIT = _openai.gauge("openai_circuit_state", "")(
    "The provider's circuit breaker: 0 closed, 1 half open, 2 open."
)
OPENAI_RUNNING = _openai.updowncounter("openai_calls_running", "{call}")(
    "Attempts now at the provider."
)

_vector_original = Emitted(_VECTOR_SVC, "original", (LABEL_COLLECTION,))
_vector = Emitted(_VECTOR_SVC, labels=(LABEL_COLLECTION,))
VECTOR_OPERATION_DURATION = _vector_original.histogram(
    "vector_operation_duration", "s", FAST_SECONDS, LABEL_OPERATION, LABEL_STATUS
)("Duration of an operation of the vector database.")
VECTOR_SIMILARITY = _vector_original.histogram(
    "vector_search_similarity", "{similarity}", UNIT_INTERVAL
)("Cosine similarity of each document a search returned; below zero it counts as 0.")
VECTOR_DISTANCE = _vector_original.histogram(
    "vector_search_distance", "{distance}", COSINE_DISTANCE
)("Cosine distance of each document a search returned.")
VECTOR_TOP_SIMILARITY = _vector.histogram(
    "vector_search_top_similarity", "{similarity}", UNIT_INTERVAL
)("Cosine similarity of the best document of each search; below zero it counts as 0.")
VECTOR_EMPTY = _vector.counter("vector_search_empty", "{search}", LABEL_FILTER)(
    "Searches that found no document; `filter` is `caller` where the caller chose one, or `none`."
)
VECTOR_DOCUMENTS = _vector.gauge("vector_documents", "{document}")("Documents in the collection.")

_model_original = Emitted(_INFERENCE_SVC, "original", _LOCAL)
_model = Emitted(_INFERENCE_SVC, labels=_LOCAL)
_gen_ai_server = Emitted(_INFERENCE_SVC, _GEN_AI, _MODEL)
MODEL_DURATION = _model_original.histogram("model_inference_duration", "s", SECONDS, LABEL_STATUS)(
    "Duration of a generation by the local model, queue included."
)
MODEL_TOKENS = _model_original.counter("model_tokens_generated", "{token}", LABEL_TENANT)(
    "Tokens the local model generated."
)
_local_cost = Emitted(_INFERENCE_SVC)
MODEL_COST = _local_cost.counter(
    "model_cost_usd", "{USD}", LABEL_MODEL, LABEL_OPERATION, LABEL_TENANT
)("Cost of the local model's work in US dollars, by the machine's price; with one only.")
MODEL_IDLE_COST = _local_cost.counter("model_idle_cost_usd", "{USD}")(
    "Cost of the time in which nobody worked; with a price only."
)
MODEL_ENERGY = _local_cost.counter("model_energy", "J", LABEL_MODEL, LABEL_OPERATION, LABEL_TENANT)(
    "Energy of the local model's work, where the GPU counts it."
)
MODEL_IDLE_ENERGY = _local_cost.counter("model_idle_energy", "J")(
    "Energy of the time in which nobody worked."
)
MODEL_REQUEST_DURATION = _gen_ai_server.histogram(
    "gen_ai.server.request.duration", "s", SECONDS, ERROR_TYPE
)("Duration of a call of a local model, queue included; of a generation until its last token.")
MODEL_FIRST_TOKEN = _gen_ai_server.histogram(
    "gen_ai.server.time_to_first_token", "s", TO_FIRST_TOKEN
)("Time until the local model's first token, queue included, of calls that succeeded.")
MODEL_OUTPUT_TOKEN = _gen_ai_server.histogram(
    "gen_ai.server.time_per_output_token", "s", PER_TOKEN
)("Time for each token of a sequence after its first, of calls that succeeded.")
MODEL_WAITING = _model.gauge("model_queue_depth", "{sequence}")(
    "Sequences that wait for their first step."
)
MODEL_RUNNING = _model.gauge("model_requests_running", "{sequence}")(
    "Sequences that are being generated."
)
MODEL_CACHE_BLOCKS = _model.gauge("model_cache_blocks", "{block}")(
    "Blocks the key-value cache has."
)
MODEL_CACHE_USED = _model.gauge("model_cache_blocks_used", "{block}")(
    "Blocks of the key-value cache that sequences hold; those kept for reuse count as free."
)
MODEL_CACHE_USAGE = _model.gauge("model_cache_usage_ratio", "1")(
    "Share of the key-value cache's blocks that sequences hold, from 0 to 1."
)
MODEL_BATCH = _model.histogram("model_batch_size", "{sequence}", POWERS)(
    "Sequences in a forward step."
)
MODEL_REJECTED = _model.counter("model_requests_rejected", "{call}", LABEL_REASON)(
    "Calls that were not let in, by why: their Problem's code."
)
REJECTED_FOR_ITSELF = ("cache_exceeded", "context_length_exceeded", "empty_prompt", "out_of_time")
"""Reasons of MODEL_REJECTED that lie in the call: its prompt, or the time its caller gave it. They
turn nobody else away.
"""
MODEL_CANCELLED = _model.counter("model_requests_cancelled", "{call}", LABEL_REASON, LABEL_STATUS)(
    "Calls given up, by why (cancelled, out_of_time) and whether they waited or ran."
)
MODEL_FAILURES = _model.counter("model_engine_failures", "{failure}", ERROR_TYPE)(
    "Forward steps that failed, by their error's class."
)

_process = Emitted(EVERY_SERVICE, "original")
CPU_USAGE = _process.gauge("cpu_usage", "%")(
    "CPU time of this process since the last reading, in percent of one core."
)
MEMORY_USED = _process.gauge("memory_used", "By")("Resident memory of this process.")

_sdk = Emitted(EVERY_SERVICE, "semconv otel/sdk-metrics", (COMPONENT_TYPE, COMPONENT_NAME))
SPANS_PROCESSED = _sdk.counter("otel.sdk.processor.span.processed", "{span}", ERROR_TYPE)(
    "Spans handed to the exporter; with error.type those dropped before, as from a full queue."
)
LOGS_PROCESSED = _sdk.counter("otel.sdk.processor.log.processed", "{log_record}", ERROR_TYPE)(
    "Log records handed to the exporter; with error.type those dropped before."
)
SPANS_EXPORTED = _sdk.counter("otel.sdk.exporter.span.exported", "{span}", *_PEER, ERROR_TYPE)(
    "Spans whose export has ended; with error.type those that nobody took. Over HTTP those "
    "that were answered by an error status have none: see otel.sdk.exporter.operation.duration."
)
LOGS_EXPORTED = _sdk.counter("otel.sdk.exporter.log.exported", "{log_record}", *_PEER, ERROR_TYPE)(
    "The same of log records."
)
POINTS_EXPORTED = _sdk.counter(
    "otel.sdk.exporter.metric_data_point.exported", "{data_point}", *_PEER, ERROR_TYPE
)("The same of metric data points.")
EXPORT_DURATION = _sdk.histogram(
    "otel.sdk.exporter.operation.duration",
    "s",
    HTTP_SECONDS,
    *(*_PEER, ERROR_TYPE, HTTP_STATUS, RPC_STATUS),
)(
    "Duration of an export, all its attempts included; with the status that was answered when "
    "it failed."
)
COLLECTION_DURATION = _sdk.histogram(
    "otel.sdk.metric_reader.collection.duration", "s", FAST_SECONDS
)("Duration of reading all metrics.")
SPANS_WAITING = _sdk.updowncounter("otel.sdk.processor.span.queue.size", "{span}")(
    "Spans that wait to be exported."
)
SPANS_ROOM = _sdk.updowncounter("otel.sdk.processor.span.queue.capacity", "{span}")(
    "Most spans that may wait."
)
LOGS_WAITING = _sdk.updowncounter("otel.sdk.processor.log.queue.size", "{log_record}")(
    "Log records that wait to be exported."
)
LOGS_ROOM = _sdk.updowncounter("otel.sdk.processor.log.queue.capacity", "{log_record}")(
    "Most log records that may wait."
)
SPANS_IN_FLIGHT = _sdk.updowncounter("otel.sdk.exporter.span.inflight", "{span}", *_PEER)(
    "Spans being exported."
)
LOGS_IN_FLIGHT = _sdk.updowncounter("otel.sdk.exporter.log.inflight", "{log_record}", *_PEER)(
    "Log records being exported."
)
POINTS_IN_FLIGHT = _sdk.updowncounter(
    "otel.sdk.exporter.metric_data_point.inflight", "{data_point}", *_PEER
)("Metric data points being exported.")

_hw = Emitted(_INFERENCE_SVC, "semconv hardware/common", _HW)
_hw_gpu = Emitted(_INFERENCE_SVC, "semconv hardware/gpu", _HW)
_hw_temperature = Emitted(_INFERENCE_SVC, "semconv hardware/temperature", _HW)
HW_GPU_MEMORY_USAGE = _hw_gpu.updowncounter("hw.gpu.memory.usage", "By")("GPU memory used.")
HW_GPU_MEMORY_LIMIT = _hw_gpu.updowncounter("hw.gpu.memory.limit", "By")("Size of the GPU memory.")
HW_GPU_MEMORY_UTILIZATION = _hw_gpu.gauge("hw.gpu.memory.utilization", "1")(
    "Fraction of GPU memory used."
)
HW_GPU_UTILIZATION = _hw_gpu.gauge("hw.gpu.utilization", "1", HW_GPU_TASK)(
    "Fraction of time in which the GPU computed."
)
HW_TEMPERATURE = _hw_temperature.gauge("hw.temperature", "Cel")("Temperature of the GPU.")
HW_POWER = _hw.gauge("hw.power", "W")("Power the GPU draws.")
HW_ENERGY = _hw.counter("hw.energy", "J")("Energy the GPU has used since its driver was loaded.")

_gpu = Emitted(_INFERENCE_SVC, "original", _GPU)
_gpu_ours = Emitted(_INFERENCE_SVC, labels=_GPU)
GPU_MEMORY_USED = _gpu.gauge("gpu_memory_used", "By")("GPU memory used, by all processes.")
GPU_MEMORY_TOTAL = _gpu.gauge("gpu_memory_total", "By")("Size of the GPU memory.")
GPU_UTILIZATION = _gpu.gauge("gpu_utilization", "%")("Time in which the GPU computed, in percent.")
GPU_TEMPERATURE = _gpu.gauge("gpu_temperature", "Cel")("Temperature of the GPU.")
GPU_POWER = _gpu.gauge("gpu_power", "W")("Power the GPU draws.")
GPU_PROCESS_MEMORY = _gpu_ours.gauge("gpu_process_memory_used", "By")(
    "GPU memory this process uses."
)

_torch = Emitted(_INFERENCE_SVC, labels=(LABEL_DEVICE,))
TORCH_MEMORY = _torch.gauge("torch_memory", "By", LABEL_STATE)(
    "Memory of PyTorch's allocator by state: allocated by tensors, reserved from the driver of "
    "the GPU, and the limit the driver recommends (MPS)."
)
TORCH_RETRIES = _torch.counter("torch_allocation_retries", "{retry}")(
    "Allocations on the GPU that failed until PyTorch had given back what it kept unused."
)
TORCH_OUT_OF_MEMORY = _torch.counter("torch_out_of_memory", "{error}")(
    "Allocations on the GPU that failed for good."
)

METRICS = tuple(value for value in globals().copy().values() if isinstance(value, Metric))
"""Every metric of our own, and those the SDK writes; the former names of some are in `FORMER`."""
