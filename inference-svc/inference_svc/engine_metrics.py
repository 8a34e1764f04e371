"""The engine's own metrics: its queue, its batch, its cache, its failures."""

from collections.abc import Callable, Iterable

from opentelemetry.metrics import Observation

from inference_svc.engine import Engine
from inference_svc.steps import Step
from o11y.telemetry import schema
from o11y.telemetry.signals import Telemetry


def observe(engine: Engine, telemetry: Telemetry) -> None:
    """Make telemetry see the engine: gauges when they are read, the rest as it happens."""
    model = engine.language_model
    labels = {schema.LABEL_MODEL: model.name, schema.LABEL_DEVICE: model.device}
    sizes = telemetry.histogram(schema.MODEL_BATCH).bind(labels)
    failures = telemetry.counter(schema.MODEL_FAILURES)

    def gauge(metric: schema.Metric, read: Callable[[], float]) -> None:
        def observed() -> Iterable[Observation]:
            return [Observation(read(), labels)]

        telemetry.observable_gauge(metric, observed)

    gauge(schema.MODEL_WAITING, lambda: engine.waiting)
    gauge(schema.MODEL_RUNNING, lambda: engine.running)
    gauge(schema.MODEL_CACHE_BLOCKS, lambda: engine.cache_blocks)
    gauge(schema.MODEL_CACHE_USED, lambda: engine.cache_used)
    gauge(schema.MODEL_CACHE_USAGE, lambda: engine.cache_used / engine.cache_blocks)

    def on_step(step: Step) -> None:
        sizes.record(step.requests, step.context)

    def on_failure(error: Exception) -> None:
        failures.add(1, {**labels, schema.ERROR_TYPE: type(error).__qualname__})

    engine.on_step, engine.on_failure = on_step, on_failure
