"""The providers that may answer a call, in their order, each with its name for the model."""

import time
from collections.abc import Sequence

from accounting.caller import allowed_models
from llm_proxy.provider import Provider
from llm_proxy.requests import Request
from o11y.web.problems import Problem

RELEARN_SECONDS = 5.0
"""Pause before a provider that didn't list its models is asked again, while there are others: it
may hang, and every call would wait for it.
"""

Candidate = tuple[Provider, str]
"""A provider, and its name for the model."""


class Routing:
    """Chooses the providers that may answer a call, in the order they are to be tried."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self.providers = providers
        self._silent_until: dict[str, float] = {}

    async def candidates(self, request: Request) -> list[Candidate]:
        """The candidates for a call, one at least.

        Raises Problem 422 when no provider has a default model for a call that names none, 403 when
        the caller's key may use none of the models, 503 when the only provider is the local one and
        can't be reached.
        """
        await self.learn_models()
        embeds = request.operation.embeds
        found = self._embedding(request.model) if embeds else self._generating(request.model)
        allowed = allowed_models()
        if allowed is None or request.model in allowed:
            return found
        permitted = [(provider, model) for provider, model in found if model in allowed]
        if not permitted:
            raise Problem(
                403,
                "model: the key may not use this model",
                code="model_not_allowed",
                field="model",
            )
        return permitted

    async def learn_models(self) -> None:
        """Ask the providers for their models. Raises Problem when the only one doesn't answer."""
        for provider in self.providers:
            if time.monotonic() < self._silent_until.get(provider.name, 0.0):
                continue
            try:
                await provider.learn_models()
            except Problem:
                if len(self.providers) == 1:
                    raise
                self._silent_until[provider.name] = time.monotonic() + RELEARN_SECONDS

    def _generating(self, model_name: str | None) -> list[Candidate]:
        """All providers that have a name for the model.

        Where there are several, the local one answers with its own model if its `models` have no
        entry for the one that is asked for.
        """
        found: list[Candidate] = []
        for provider in self.providers:
            model = provider.chat_model if model_name is None else provider.model(model_name)
            if model_name == model and provider.is_local and len(self.providers) > 1:
                model = provider.chat_model  # it hasn't got the others' models
            if model is not None:
                found.append((provider, model))
        if not found:
            raise Problem(
                422, "model: no provider has a default model", code="invalid_input", field="model"
            )
        return found

    def _embedding(self, model_name: str | None) -> list[Candidate]:
        """Providers with this very model, as vectors of two can't be compared; else the first."""
        if model_name is None:
            model_name = next(
                (one.embedding_model for one in self.providers if one.embedding_model), ""
            )
        if not model_name:
            raise Problem(
                422,
                "model: no provider has a default embedding model",
                code="invalid_input",
                field="model",
            )
        found = [
            (provider, provider.settings.models.get(model_name) or model_name)
            for provider in self.providers
            if model_name in provider.settings.models or model_name == provider.embedding_model
        ]
        return found or [(self.providers[0], model_name)]
