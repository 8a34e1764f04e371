"""Keys of attributes and labels, and the values that some of them have."""

from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Attribute:
    """A key of spans, events or metrics: what it says, and where the name comes from."""

    key: str
    source: str
    note: str


SCHEMA_URL = "https://opentelemetry.io/schemas/gen-ai/0.1.0"
"""The conventions that all names follow: semantic-conventions-genai v0.1.0, with those of v1.45.0
that it stands on.
"""

_attributes: list[Attribute] = []


def _key(source: str, key: str, note: str) -> str:
    _attributes.append(Attribute(key, source, note))
    return key


_original = partial(_key, "original")
_ours = partial(_key, "o11y")
_http = partial(_key, "semconv http/http-spans")
_gen_ai = partial(_key, "semconv gen-ai/gen-ai-spans")
_sdk = partial(_key, "semconv otel/sdk-metrics")
_db = partial(_key, "semconv db/database-spans")
_hardware = partial(_key, "semconv hardware/common")

# Who
USER_ID = _key("semconv registry/user", "user.id", "The user a request is for.")
SESSION_ID = _key("semconv registry/session", "session.id", "The user's session.")
USER_ID_ORIGINAL = _original("user_id", "As `user.id`.")
SESSION_ID_ORIGINAL = _original("session_id", "As `session.id`.")
TENANT_ID = _ours("tenant.id", "The tenant: `X-Tenant-Id` at the gateway.")
_PERSON = (USER_ID, SESSION_ID, USER_ID_ORIGINAL, SESSION_ID_ORIGINAL)
KEY_ID = _ours("o11y.key.id", "The public part of the caller's API key.")
IDENTITY = (*_PERSON, TENANT_ID, KEY_ID)
"""Every span may have these."""

# HTTP and network
HTTP_METHOD = _http("http.request.method", "Method, `_OTHER` for an unusual one.")
HTTP_METHOD_ORIGINAL = _http("http.request.method_original", "The unusual method.")
HTTP_ROUTE = _http("http.route", "The route that matched.")
HTTP_STATUS = _http("http.response.status_code", "Status of the answer, if there was one.")
HTTP_RESEND_COUNT = _http("http.request.resend_count", "How often it was tried before, if it was.")
URL_FULL = _http("url.full", "Address that was called, without credentials.")
URL_PATH = _http("url.path", "Path that was asked for.")
URL_QUERY = _http("url.query", "Names of the query's parameters; values are redacted.")
URL_SCHEME = _http("url.scheme", "`http` or `https`.")
URL_TEMPLATE = _http("url.template", "Path that was called: it holds no ids.")
SERVER_ADDRESS = _http("server.address", "Host; of a call the replica's or the provider's.")
SERVER_PORT = _http("server.port", "Its port.")
PROTOCOL_VERSION = _http("network.protocol.version", "Version of HTTP.")
PEER_ADDRESS = _http("network.peer.address", "Address the connection goes to.")
PEER_PORT = _http("network.peer.port", "Port the connection goes to, unless it is the scheme's.")
PEER_SERVICE = _key("semconv registry/service", "service.peer.name", "The service that was called.")
ERROR_TYPE = _key("semconv registry/error", "error.type", "Why it failed: status, code or class.")

# Telemetry about telemetry
COMPONENT_TYPE = _sdk("otel.component.type", "What holds or sends spans or logs, or reads metrics.")
COMPONENT_NAME = _sdk("otel.component.name", "Which of these in the process.")
RPC_STATUS = _key("semconv registry/rpc", "rpc.response.status_code", "Status of gRPC's answer.")

# Generation and retrieval
OPERATION = _gen_ai("gen_ai.operation.name", "`chat`, `embeddings`, `retrieval` …")
PROVIDER = _gen_ai(
    "gen_ai.provider.name",
    "Who does the work: `openai`, `o11y-local`, `chroma` …, the conventions' word where they have "
    "one; the name in the settings is the label `provider`.",
)
REQUEST_MODEL = _gen_ai("gen_ai.request.model", "The model asked for.")
RESPONSE_MODEL = _gen_ai("gen_ai.response.model", "The model that answered.")
REQUEST_MAX_TOKENS = _gen_ai("gen_ai.request.max_tokens", "Most tokens to generate.")
REQUEST_TEMPERATURE = _gen_ai("gen_ai.request.temperature", "Temperature.")
REQUEST_CHOICES = _gen_ai("gen_ai.request.choice.count", "Answers asked for.")
REQUEST_TOP_P = _gen_ai("gen_ai.request.top_p", "Nucleus sampling.")
REQUEST_TOP_K = _gen_ai("gen_ai.request.top_k", "Most likely tokens to draw from.")
REQUEST_SEED = _gen_ai("gen_ai.request.seed", "Seed of the draws.")
REQUEST_STOP = _gen_ai("gen_ai.request.stop_sequences", "Texts that end an answer.")
REQUEST_STREAM = _gen_ai("gen_ai.request.stream", "Whether the answer is streamed; absent if not.")
RESPONSE_ID = _gen_ai("gen_ai.response.id", "The provider's id of its answer.")
FIRST_CHUNK_SECONDS = _gen_ai("gen_ai.response.time_to_first_chunk", "Seconds to the first event.")
FINISH_REASONS = _gen_ai("gen_ai.response.finish_reasons", "Why each answer ended.")
INPUT_TOKENS = _gen_ai("gen_ai.usage.input_tokens", "Tokens of the prompt, all attempts'.")
OUTPUT_TOKENS = _gen_ai("gen_ai.usage.output_tokens", "Tokens generated, all attempts'.")
CACHE_READ_TOKENS = _gen_ai(
    "gen_ai.usage.cache_read.input_tokens", "Input tokens the provider had cached."
)
CACHE_WRITE_TOKENS = _gen_ai(
    "gen_ai.usage.cache_write.input_tokens", "Input tokens the provider put in its cache."
)
REASONING_TOKENS = _gen_ai("gen_ai.usage.reasoning.output_tokens", "Output tokens of reasoning.")
AUDIO_INPUT_TOKENS = _gen_ai("gen_ai.usage.audio.input_tokens", "Input tokens of audio.")
AUDIO_OUTPUT_TOKENS = _gen_ai("gen_ai.usage.audio.output_tokens", "Output tokens of audio.")
TOKEN_MODALITY = _key(
    "semconv gen-ai/gen-ai-token-metrics",
    "gen_ai.token.modality",
    "`text` or `audio`; `unknown` of a prompt with images or files, since no provider says how "
    "many of its tokens these are.",
)
AGENT_NAME = _gen_ai("gen_ai.agent.name", "Name of the pipeline.")
DATA_SOURCE = _gen_ai("gen_ai.data_source.id", "Collection that was searched.")
RETRIEVAL_TOP_K = _gen_ai("gen_ai.retrieval.top_k", "Most documents to return.")
RETRIEVAL_DOCUMENTS = _gen_ai(
    "gen_ai.retrieval.documents", "Ids and scores, JSON; with capture on spans."
)
INPUT_MESSAGES = _gen_ai("gen_ai.input.messages", "The conversation, JSON; only with capture.")
OUTPUT_MESSAGES = _gen_ai("gen_ai.output.messages", "The answers, JSON; only with capture.")
SYSTEM_INSTRUCTIONS = _gen_ai(
    "gen_ai.system_instructions", "The instructions, JSON; only with capture."
)
EMBEDDING_WINDOWS = _ours(
    "o11y.embedding.windows", "Pieces that texts were embedded in: of long ones several each."
)
EMBEDDING_DIMENSIONS = _gen_ai("gen_ai.embeddings.dimension.count", "Length of a vector.")
DB_SYSTEM = _db("db.system.name", "`chroma`.")
DB_OPERATION = _db("db.operation.name", "What was done.")
DB_COLLECTION = _db("db.collection.name", "Collection it was done to.")

# The original's names for the same, and what only it had
MODEL_NAME = _original("model.name", "The local model.")
MODEL_DEVICE = _original("model.device", "Device it runs on.")
MODEL_PARAMETERS = _original("model.parameters", "Number of its parameters.")
PROMPT_TOKENS_ORIGINAL = _original("llm.usage.prompt_tokens", "As `gen_ai.usage.input_tokens`.")
COMPLETION_TOKENS_ORIGINAL = _original(
    "llm.usage.completion_tokens", "As `gen_ai.usage.output_tokens`."
)
TOKENS_PER_SECOND = _original("tokens_per_second", "Tokens generated a second, of the whole call.")
BATCH_EFFICIENCY = _original("batch_efficiency", "Part of the token slots computed that was used.")
"""Over the forward steps the call took part in, until it ended: token slots whose result was used /
token slots computed, of everyone in the steps. Not used are padding, what is computed again after
an eviction, past a stop text, after a caller left, or in a step that failed.
"""

# Ours
COST_USD = _ours("o11y.cost.usd", "Cost in US dollars, that of all attempts together.")
COST_SOURCE = _ours(
    "o11y.cost.source",
    "Where its price is from: `price_list`, `configured`, `free` (the local model), "
    "`machine` (the same, by `LOCAL_USD_PER_HOUR`), or `model_name`, a guess by the model's name "
    "at an address that no list knows.",
)
USAGE_ESTIMATED = _ours("o11y.usage.estimated", "Whether tokens are an estimate; absent if not.")
LLM_PROVIDER = _ours("o11y.llm.provider", "The provider's name in the settings.")
LLM_ATTEMPTS = _ours("o11y.llm.attempts", "Attempts the call took.")
LLM_ATTEMPT = _ours("o11y.llm.attempt.number", "Which attempt of the call this is, from 1.")
ATTEMPT_INPUT_TOKENS = _ours("o11y.llm.attempt.input_tokens", "Input tokens it is billed.")
ATTEMPT_OUTPUT_TOKENS = _ours("o11y.llm.attempt.output_tokens", "Output tokens it is billed.")
ATTEMPT_COST_USD = _ours("o11y.llm.attempt.cost.usd", "What these cost in US dollars.")
PIPELINE_STAGE = _ours("o11y.pipeline.stage", "Stage of the pipeline this belongs to.")
STAGE_ERROR = _ours("o11y.pipeline.stage.error", "Why the stage failed, as a sentence.")
PIPELINE_STEPS = _ours("o11y.pipeline.steps_completed", "Stages that worked.")
QUEUE_SECONDS = _ours("o11y.queue.seconds", "Seconds until the work began.")
BATCH_SIZE = _ours("o11y.batch.size", "Texts in the batch, of all callers.")
FIRST_TOKEN_SECONDS = _ours("o11y.time_to_first_token.seconds", "Seconds until the first token.")
STEPS = _ours("o11y.batch.steps", "Forward steps the call took part in.")
BATCH_MEAN = _ours("o11y.batch.requests.mean", "Sequences in these, of all callers: their mean.")
BATCH_MOST = _ours("o11y.batch.requests.max", "The same: the most.")
RESULT_COUNT = _ours("o11y.retrieval.result_count", "Documents found.")
TOP_SIMILARITY = _ours("o11y.retrieval.top_similarity", "Cosine similarity of the best one.")
DOCUMENT_COUNT = _ours("o11y.vector.document_count", "Texts to embed or to store.")
EMBEDDING_MODEL = _ours("o11y.embedding.model", "Model the vectors come from.")

# Accelerators
HW_ID = _hardware("hw.id", "UUID of the GPU.")
HW_NAME = _hardware("hw.name", "Its name.")
HW_TYPE = _hardware("hw.type", "`gpu`.")
HW_VENDOR = _hardware("hw.vendor", "Its maker.")
HW_PARENT = _hardware("hw.parent", "UUID of the GPU this is a part of.")
HW_GPU_TASK = _key("semconv hardware/gpu", "hw.gpu.task", "`general`.")

LOCAL_COST_USD = _ours(
    "o11y.local.cost.usd",
    "US dollars of a local model's work; those that llm-proxy bills are `o11y.cost.usd` too.",
)
ENERGY_JOULES = _ours("o11y.energy.joules", "Energy of a local model's work, as its GPU counts it.")
ADMISSION_DECISION = _ours("o11y.admission.decision", "`allowed` or `refused`.")
ADMISSION_REASON = _ours("o11y.admission.reason", "Why a call was refused: a code.")

# Labels of our own metrics; two of them are keys of an event as well
LABEL_REASON = _ours("reason", "Why a call was given up.")
LABEL_STATUS = _ours("status", "Whether it waited or ran.")
LABEL_MODEL = "model"
LABEL_DEVICE = "device"
LABEL_PROVIDER = "provider"
LABEL_OPERATION = "operation"
LABEL_STAGE = "stage"
LABEL_COLLECTION = "collection"
LABEL_TYPE = "type"
LABEL_ESTIMATED = "estimated"
LABEL_FILTER = "filter"
LABEL_NEXT = "next"
LABEL_SERVICE = "service"
LABEL_INSTANCE = "instance"
LABEL_STATE = "state"
LABEL_RUNS_MODEL = "runs_model"
LABEL_KEY = "key"
"""The name of an API key; bounded."""
LABEL_PERIOD = "period"
LABEL_TENANT = "tenant"
"""The tenant (`X-Tenant-Id` at the gateway); bounded, see `identity.Tenants`."""

ATTRIBUTES = tuple(_attributes)

# Labels of metrics under the names they had before (`aliases.FORMER`)
TOKEN_TYPE = "gen_ai.token.type"
WORKFLOW_NAME = "gen_ai.workflow.name"

# Values of error.type for calls without an answer, or without all of it
ERROR_CONNECT = "connect_error"
ERROR_CONNECTION_LOST = "connection_lost"
ERROR_TIMEOUT = "timeout"
ERROR_UNREADABLE = "unreadable_answer"
ERROR_CANCELLED = "cancelled"
ERROR_CLIENT_GONE = "client_disconnected"
ERROR_CALLER_DEADLINE = "caller_deadline"
"""The error of a SERVER span with 504 whose caller had given it (`X-Request-Timeout`) less than
half of the time that requests have.
"""
ERROR_STREAM_BROKEN = "stream_broken"
"""The error of a SERVER span whose answer was a stream that ended with an error event."""

FINISH_ERROR = "error"
"""The finish reason of an answer that broke off before it had one."""

# Values of o11y.cost.source
COST_FREE = "free"
"""The local inference service, which costs nothing."""
COST_MACHINE = "machine"
"""The price of the machine that the local inference service runs on."""
COST_CONFIGURED = "configured"
"""The provider's `prices`."""
COST_PRICE_LIST = "price_list"
"""The price list that is named, or that knows the provider's address."""
COST_MODEL_NAME = "model_name"
"""A guess: nobody knows the address, but the model has the name of one that is sold."""
