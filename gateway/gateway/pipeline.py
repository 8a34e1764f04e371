"""The pipeline: what happens to a query, in which order, and what remains when a stage fails.

The local generation runs beside everything else; the embedding of the query, the search, the chat
and the storing follow each other. A stage that fails is reported and the others go on.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from openai.types.chat import ChatCompletionMessageParam
from opentelemetry import trace

from gateway import stage
from gateway.backends import Backends, Embedded
from gateway.contracts import (
    CHAT,
    EMBED_ANSWER,
    EMBED_QUERY,
    LOCAL_INFERENCE,
    SEARCH,
    STAGES,
    STORE,
    ChatAnswer,
    Embeddings,
    PipelineAnswer,
    PipelineRequest,
    PipelineResults,
    PipelineSummary,
    SearchAnswer,
    Stage,
)
from o11y.contracts import LocalInferenceAnswer, LocalInferenceRequest, SearchResult, StoreAnswer
from o11y.telemetry import schema
from o11y.telemetry.genai import Operation
from o11y.telemetry.logs import trace_ids
from o11y.telemetry.signals import Telemetry
from o11y.web.problems import Problem

TEMPERATURE = 0.3

WORKFLOW = "invoke_workflow"
"""`gen_ai.operation.name` of a pipeline call."""

KNOWLEDGE = {"kind": {"$nin": ["query", "answer"]}}
"""The filter of searches: questions and answers of earlier calls are stored, but are no source. A
question would find itself, and a wrong answer would prove itself."""

T = TypeVar("T")


class Pipeline:
    """Runs pipeline calls on the services behind the gateway."""

    def __init__(self, backends: Backends, telemetry: Telemetry) -> None:
        self._backends = backends
        self._tracer = telemetry.tracer
        self._workflow_duration = telemetry.histogram(schema.GEN_AI_AGENT_DURATION)
        self._stage_duration = telemetry.histogram(schema.PIPELINE_STAGE_DURATION)

    async def run(self, request: PipelineRequest) -> PipelineAnswer:
        """Answer a query. Raises Problem only when no stage could produce an answer."""
        started = time.perf_counter()
        with self._workflow().running() as workflow:
            call = _Call(self._backends, request, self._record)
            async with asyncio.TaskGroup() as group:
                group.create_task(call.generate_locally())
                group.create_task(call.answer_and_store())
            call.skip_rest()
            if call.chat is None and call.local is None:
                raise call.failure()
            answer = call.answer(time.perf_counter() - started)
            workflow.span.set_attribute(schema.PIPELINE_STEPS, answer.summary.steps_completed)
            if answer.summary.total_cost_usd is not None:
                workflow.span.set_attribute(schema.COST_USD, answer.summary.total_cost_usd)
        return answer

    def _workflow(self) -> Operation:
        name = {schema.AGENT_NAME: schema.SPAN_WORKFLOW}
        return Operation(
            self._tracer,
            f"{WORKFLOW} {schema.SPAN_WORKFLOW}",
            {schema.OPERATION: WORKFLOW, **name},
            duration=self._workflow_duration,
            labels=name,
        )

    def _record(self, stage: Stage, problem: Problem | None) -> None:
        self._stage_duration.record(
            stage.duration_seconds,
            {schema.LABEL_STAGE: stage.name, schema.LABEL_STATUS: stage.status},
        )
        if stage.status == "error":
            failed = {schema.PIPELINE_STAGE: stage.name, schema.STAGE_ERROR: str(problem or "")}
            trace.get_current_span().add_event(schema.EVENT_STAGE_FAILED, failed)


class _Call:
    """One call in progress: what its stages gave so far."""

    def __init__(
        self,
        backends: Backends,
        request: PipelineRequest,
        record: Callable[[Stage, Problem | None], None],
    ) -> None:
        self._backends = backends
        self._request = request
        self._record = record
        self._stages: dict[str, Stage] = {}
        self._problems: dict[str, Problem] = {}
        self._query: Embedded | None = None
        self._answer: Embedded | None = None
        self._stored: StoreAnswer | None = None
        self._search: SearchAnswer | None = None
        self.chat: ChatAnswer | None = None
        self.local: LocalInferenceAnswer | None = None

    async def generate_locally(self) -> None:
        request = LocalInferenceRequest(
            prompt=self._request.query,
            max_length=self._request.max_tokens,
            temperature=TEMPERATURE,
            seed=self._request.seed,
        )
        self.local = await self._stage(
            LOCAL_INFERENCE,
            lambda: self._backends.generate(request.model_dump(exclude={"user_id", "session_id"})),
        )

    async def answer_and_store(self) -> None:
        self._query = await self._stage(
            EMBED_QUERY, lambda: self._backends.embed([self._request.query])
        )
        if self._query is None:
            self._skip(SEARCH, "the query has no embedding")
        else:
            embedded = self._query
            self._search = await self._stage(
                SEARCH,
                lambda: self._backends.search(
                    self._request.query,
                    embedded,
                    self._request.n_results,
                    KNOWLEDGE,
                ),
            )
        found = self._search.results if self._search and self._request.use_context else []
        self.chat = await self._stage(
            CHAT,
            lambda: self._backends.chat(
                messages(self._request.query, found),
                temperature=TEMPERATURE,
                max_tokens=self._request.max_tokens,
                seed=self._request.seed,
            ),
        )
        if self._request.store_results:
            await self._store(self.chat.response.strip() if self.chat else "")

    def skip_rest(self) -> None:
        """Report the stages that nobody asked for as skipped."""
        for name in STAGES:
            if name not in self._stages:
                self._skip(name, None)

    async def _store(self, text: str) -> None:
        if text:
            self._answer = await self._stage(EMBED_ANSWER, lambda: self._backends.embed([text]))
        else:
            self._skip(EMBED_ANSWER, "there is no answer to embed")
        rows = [
            (document, embedded, {"kind": kind, **trace_ids()})
            for kind, document, embedded in (
                ("query", self._request.query, self._query),
                ("answer", text, self._answer),
            )
            if embedded is not None
        ]
        if not rows:
            self._skip(STORE, "there is nothing with an embedding to store")
            return
        documents, embeddings, metadata = zip(*rows, strict=True)
        both = Embedded([item.vectors[0] for item in embeddings], embeddings[0].metadata)
        self._stored = await self._stage(
            STORE,
            lambda: self._backends.store(documents, both, metadata=metadata),
        )

    async def _stage(self, name: str, work: Callable[[], Awaitable[T]]) -> T | None:
        started = time.perf_counter()
        status: Literal["ok", "error"] = "error"
        failure = None
        try:
            with stage.running(name):
                result = await work()
            status = "ok"
            return result
        except Problem as problem:
            failure = self._problems[name] = problem
            return None
        finally:
            reason = failure.detail if failure else None
            self._end(name, status, time.perf_counter() - started, reason, failure)

    def _skip(self, name: str, reason: str | None) -> None:
        self._end(name, "skipped", 0.0, reason)

    def _end(
        self,
        name: str,
        status: Literal["ok", "error", "skipped"],
        seconds: float,
        reason: str | None,
        problem: Problem | None = None,
    ) -> None:
        if name not in STAGES:
            raise ValueError(f"STAGES has no {name}: no answer would list it")
        ended = Stage(name=name, status=status, duration_seconds=seconds, error=reason)
        self._stages[name] = ended
        self._record(ended, problem)

    def failure(self) -> Problem:
        """The whole call's error: nothing gave an answer."""
        failed = [stage for stage in self._ordered() if stage.status == "error"]
        reasons = "; ".join(f"{stage.name}: {stage.error}" for stage in failed)
        words = "; ".join(f"{name}: {problem}" for name, problem in self._problems.items())
        statuses = {problem.status for problem in self._problems.values()}
        # What each stage finds wrong with the call is the call's fault, in whatever words.
        worst = max(statuses)
        status = worst if len(statuses) == 1 or worst < 500 else 502
        waits = [problem.headers.get("Retry-After") for problem in self._problems.values()]
        retry = next((wait for wait in waits if wait and status in (429, 503)), None)
        return Problem(
            status,
            f"no stage could answer: {reasons}",
            code="pipeline_failed",
            headers={"Retry-After": retry} if retry else None,
            log_detail=f"no stage could answer: {words}",
        )

    def answer(self, seconds: float) -> PipelineAnswer:
        embeddings = [item for item in (self._query, self._answer) if item]
        costs = [item.metadata.cost_usd for item in embeddings]
        if self.chat:
            costs.append(self.chat.metadata.cost_usd)
        if self.local:
            costs.append(self.local.metadata.cost_usd)
        known = [cost for cost in costs if cost is not None]
        stages = self._ordered()
        return PipelineAnswer(
            query=self._request.query,
            results=PipelineResults(
                openai_response=self.chat,
                embeddings=_together(embeddings),
                vector_storage=self._stored,
                local_model_response=self.local,
                similarity_search=self._search,
            ),
            summary=PipelineSummary(
                total_duration_seconds=seconds,
                total_cost_usd=sum(known) if len(known) == len(costs) else None,
                steps_completed=sum(stage.status == "ok" for stage in stages),
                openai_tokens_used=sum(item.metadata.usage.total_tokens for item in embeddings)
                + (self.chat.metadata.usage.total_tokens if self.chat else 0),
                local_tokens_generated=(
                    self.local.metadata.usage.completion_tokens if self.local else 0
                ),
                documents_stored=len(self._stored.ids) if self._stored else 0,
                search_results_found=self._search.count if self._search else 0,
            ),
            stages=stages,
            trace_id=trace_ids().get("trace_id"),
        )

    def _ordered(self) -> list[Stage]:
        return [self._stages[name] for name in STAGES if name in self._stages]


def messages(query: str, found: list[SearchResult]) -> list[ChatCompletionMessageParam]:
    """The conversation for the chat stage: the documents found as context, then the query."""
    question: ChatCompletionMessageParam = {"role": "user", "content": query}
    if not found:
        return [question]
    context = "\n\n".join(result.document for result in found)
    return [
        {
            "role": "system",
            "content": f"Answer the question in one or two sentences, using the context.\n\n"
            f"Context:\n{context}",
        },
        question,
    ]


def _together(embeddings: list[Embedded]) -> Embeddings | None:
    """The embeddings of a call as one: the same model made them, sums of the rest."""
    if not embeddings:
        return None
    first = embeddings[0].metadata.model_copy(deep=True)
    for item in embeddings[1:]:
        usage = item.metadata.usage
        first.usage.prompt_tokens += usage.prompt_tokens
        first.usage.total_tokens += usage.total_tokens
        first.duration_seconds += item.metadata.duration_seconds
        costs = (first.cost_usd, item.metadata.cost_usd)
        first.cost_usd = None if None in costs else sum(cost for cost in costs if cost)
    return Embeddings(
        embeddings_created=sum(len(item.vectors) for item in embeddings), metadata=first
    )
