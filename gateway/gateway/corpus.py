"""The documents of the first start: a small corpus, so that a search finds something sensible."""

import asyncio
import json
import logging
from importlib import resources

from pydantic import BaseModel

from gateway.backends import Backends, Embedded
from gateway.service_responses import parsed
from o11y.telemetry import schema
from o11y.telemetry.signals import Telemetry
from o11y.web.problems import Problem, unavailable

logger = logging.getLogger(__name__)

ATTEMPTS = 150
"""Most attempts to load the corpus. A slow machine loads its model for a minute or two, and without
it there are no embeddings.
"""

PAUSE_SECONDS = 1.0
STATS_SECONDS = 2.0


class _Stats(BaseModel):
    document_count: int


class Corpus:
    """Loads the packaged texts into an empty collection, once the services answer."""

    def __init__(self, backends: Backends, telemetry: Telemetry) -> None:
        self._backends = backends
        self._tracer = telemetry.tracer
        self._embedded: Embedded | None = None
        self.settled = asyncio.Event()

    async def load(self) -> None:
        """Try until the corpus is loaded or clearly can't be; `settled` is set in the end, either
        way.
        """
        reason = ""
        try:
            for _ in range(ATTEMPTS):
                try:
                    await self._load_if_empty()
                    return
                except Problem as problem:
                    reason = problem.detail
                    if problem.status < 500 and problem.status != 429:
                        break  # it would be refused again
                    await asyncio.sleep(PAUSE_SECONDS)
            logger.warning("the corpus could not be loaded: %s", reason)
        finally:
            self.settled.set()

    async def _load_if_empty(self) -> None:
        response = await self._backends.vector.probe("/stats", STATS_SECONDS)
        if response is None:
            raise unavailable("vector-svc can't be reached")
        if parsed(_Stats, response, "vector-svc").document_count:
            return
        rows = [json.loads(line) for line in read().splitlines()]
        texts = [row["text"] for row in rows]
        metadata = [
            {"kind": "corpus", "topic": row["topic"], "title": row["title"]} for row in rows
        ]
        with self._tracer.start_as_current_span(schema.SPAN_CORPUS):
            if self._embedded is None:  # an embedding may cost money: one is enough
                self._embedded = await self._backends.embed(texts)
            stored = await self._backends.store(
                texts, self._embedded, metadata=metadata, ids=[row["id"] for row in rows]
            )
        logger.info("corpus loaded", extra={"documents": stored.total_documents})


def read() -> str:
    """The packaged texts, one JSON object a line: id, text, topic, title."""
    return resources.files("gateway").joinpath("corpus.jsonl").read_text(encoding="utf-8")
