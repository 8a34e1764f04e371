"""Builds the application of inference-svc: models, engine, routes and metrics."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial

import torch
from fastapi import FastAPI

from accounting.settings import ledger as ledger_of
from inference_svc import allocator, device, local_api, model, openai_api, sizing, threads
from inference_svc.cost import Costs, estimate, price
from inference_svc.device import Device
from inference_svc.embedder import Embedder
from inference_svc.engine import Engine
from inference_svc.generation import Generator
from inference_svc.gpu import Gpus, visible
from inference_svc.machine import Machine
from inference_svc.prompt import Prompts
from inference_svc.settings import Settings
from o11y.openai.operations import OPERATIONS
from o11y.telemetry.signals import Telemetry
from o11y.web.body_limit import LARGE_BODY
from o11y.web.service import Service, StartError, create_app, metrics_router


def load(
    settings: Settings, chosen: Device, telemetry: Telemetry, costs: Costs, machine: Machine
) -> tuple[Engine, Embedder]:
    """Load both models and make the engine's cache. Raises StartError when one of them fails."""
    language_model = model.load(settings.local_model_name, chosen, settings.model_cache_dir)
    embedder = Embedder(chosen, telemetry, costs, machine, settings.embedding_max_waiting)
    limits = sizing.limits(settings, language_model)
    try:
        return Engine(language_model, limits, machine), embedder
    except (MemoryError, torch.OutOfMemoryError, ValueError) as error:
        raise StartError(
            f"ENGINE_CACHE_BLOCKS={limits.cache_blocks}, "
            f"ENGINE_MAX_BATCH_TOKENS={limits.max_batch_tokens}: the cache can't be made: {error}"
        ) from error


def build(settings: Settings, telemetry: Telemetry) -> Service:
    """Load the models and build the application. Raises StartError when a model can't be loaded."""
    chosen = device.choose(settings.use_gpu, settings.gpu_device_id, settings.local_model_dtype)
    machine = Machine()
    gpus = Gpus(chosen.name, visible(chosen.name))
    most_watts = gpus.meter(machine)
    gpus.observe(telemetry)
    allocator.observe(chosen.name, telemetry)
    # The library's own handler would print lines of another form beside ours.
    batching = logging.getLogger("ContinuousBatchingLogger")
    batching.handlers.clear()
    batching.propagate = True
    batching.setLevel("WARNING")
    its_price = price(settings.local_usd_per_hour, settings.usd_per_kwh, most_watts)
    most_seconds = max(settings.request_timeout_seconds, settings.stream_timeout_seconds)
    ledger = ledger_of(settings, partial(estimate, its_price, most_seconds), "inference-svc")
    costs = Costs(its_price, machine, telemetry, ledger)
    loading = partial(load, settings, chosen, telemetry, costs, machine)
    engine, embedder = threads.submit("load", loading).result()
    generator = Generator(engine, telemetry, costs)
    prompts = Prompts(engine.language_model.tokenizer, engine.window)
    seconds = settings.stream_timeout_seconds

    async def watch() -> None:
        app.fail(await engine.lost())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with ledger.running() if ledger else nullcontext():
            engine.start()
            gpus.start()
            watching = asyncio.create_task(watch())
            try:
                yield
            finally:
                watching.cancel()
                await engine.stop()
                embedder.close()
                await asyncio.to_thread(gpus.close)

    async def ready() -> str | None:
        return engine.failure()

    app = create_app(
        "inference-svc",
        telemetry,
        [
            local_api.router(generator, embedder, prompts, gpus, seconds),
            openai_api.router(generator, embedder, prompts, seconds),
            metrics_router(telemetry.registry),
        ],
        lifespan,
        ready,
        timeout_seconds=settings.request_timeout_seconds,
        body_limits=dict.fromkeys(OPERATIONS, LARGE_BODY),
        internal_token=settings.internal_token,
    )
    return app
