"""The local model and what it runs on."""

from deploy.dashboards import names
from deploy.dashboards.page import Dashboard, Variable
from deploy.dashboards.panels import Row, query, stat, timeseries, traces
from deploy.dashboards.promql import mean, quantile, rate, selector
from o11y.telemetry import schema

CHOSEN = {schema.LABEL_MODEL: '=~"$model"'}
ASKED = {schema.REQUEST_MODEL: '=~"$model"'}
INFERENCE = {"service_name": '="inference-svc"'}
SLOW_QUEUE_SECONDS = 1


def _summed(metric: schema.Metric) -> str:
    return f"sum({selector(metric, CHOSEN)})"


DASHBOARD = Dashboard(
    "o11y-inference",
    "Local inference and GPU",
    "Queue, batches, speed of the local model, and the memory and load of what it runs on.",
    [
        stat(
            "Waiting",
            "Sequences that wait for their first step, of all replicas.",
            "short",
            query(_summed(schema.MODEL_WAITING)),
            thresholds=[(8, "yellow"), (64, "red")],
        ),
        stat(
            "Running",
            "Sequences that are being generated.",
            "short",
            query(_summed(schema.MODEL_RUNNING)),
        ),
        stat(
            "Tokens a second",
            "Tokens generated a second, of all callers.",
            "short",
            query(rate(schema.MODEL_TOKENS, where=CHOSEN)),
        ),
        stat(
            "First token, 95 %",
            "Of twenty callers one waits longer for the first token, queue included.",
            "s",
            query(quantile(0.95, schema.MODEL_FIRST_TOKEN, where=ASKED), latency=True),
            thresholds=[(1, "yellow"), (5, "red")],
        ),
        stat(
            "Cache used",
            "Share of the key-value cache that sequences hold; when it is full, calls wait.",
            "percentunit",
            query(f"{_summed(schema.MODEL_CACHE_USED)} / {_summed(schema.MODEL_CACHE_BLOCKS)}"),
            thresholds=[(0.8, "yellow"), (0.95, "red")],
        ),
        stat(
            "Turned away",
            "Calls a second that were not let in.",
            "ops",
            query(f"{rate(schema.MODEL_REJECTED, where=CHOSEN)} or vector(0)"),
            thresholds=[(0.001, "red")],
        ),
        Row("Queue and batches"),
        timeseries(
            "Waiting and running",
            "Sequences by replica.",
            "short",
            query(
                f"sum by (instance) ({selector(schema.MODEL_WAITING, CHOSEN)})",
                "{{instance}} waiting",
            ),
            query(
                f"sum by (instance) ({selector(schema.MODEL_RUNNING, CHOSEN)})",
                "{{instance}} running",
            ),
        ),
        timeseries(
            "Sequences in a step",
            "How full the batches are: mean, and the 95th percentile.",
            "short",
            query(mean(schema.MODEL_BATCH, where=CHOSEN), "mean"),
            query(quantile(0.95, schema.MODEL_BATCH, where=CHOSEN), "95 %"),
        ),
        timeseries(
            "Cache blocks",
            "Blocks of the key-value cache in use, and how many there are.",
            "short",
            query(_summed(schema.MODEL_CACHE_USED), "used"),
            query(_summed(schema.MODEL_CACHE_BLOCKS), "there are"),
        ),
        timeseries(
            "Turned away",
            "Calls a second that were not let in, by why.",
            "ops",
            query(rate(schema.MODEL_REJECTED, [schema.LABEL_REASON], CHOSEN), "{{reason}}"),
        ),
        timeseries(
            "Given up",
            "Calls a second whose caller left or whose time ran out, waiting or running.",
            "ops",
            query(
                rate(schema.MODEL_CANCELLED, [schema.LABEL_REASON, schema.LABEL_STATUS], CHOSEN),
                "{{reason}} {{status}}",
            ),
        ),
        timeseries(
            "Failed steps",
            "Forward steps a second that failed, by the error's class.",
            "ops",
            query(rate(schema.MODEL_FAILURES, [schema.ERROR_TYPE], CHOSEN), "{{error_type}}"),
        ),
        Row("Speed"),
        timeseries(
            "Duration of a generation",
            "Queue included: half take less, of twenty one takes longer.",
            "s",
            *(
                query(quantile(part, schema.MODEL_DURATION, where=CHOSEN), legend, latency=True)
                for part, legend in ((0.5, "median"), (0.95, "95 %"))
            ),
        ),
        timeseries(
            "Time to first token",
            "Queue included: half wait less, of twenty one waits longer.",
            "s",
            *(
                query(quantile(part, schema.MODEL_FIRST_TOKEN, where=ASKED), legend, latency=True)
                for part, legend in ((0.5, "median"), (0.95, "95 %"))
            ),
        ),
        timeseries(
            "Time for each further token",
            "It rises with the number of sequences in a step.",
            "s",
            *(
                query(quantile(part, schema.MODEL_OUTPUT_TOKEN, where=ASKED), legend, latency=True)
                for part, legend in ((0.5, "median"), (0.95, "95 %"))
            ),
        ),
        timeseries(
            "Tokens a second by tenant",
            "Whose work the model does.",
            "short",
            query(rate(schema.MODEL_TOKENS, [schema.LABEL_TENANT], CHOSEN), "{{tenant}}"),
            stacked=True,
        ),
        timeseries(
            "Calls of models",
            "Calls a second by operation: generations and embeddings.",
            "reqps",
            query(
                rate(schema.MODEL_REQUEST_DURATION, [schema.OPERATION], ASKED),
                "{{gen_ai_operation_name}}",
            ),
        ),
        traces(
            "Long waits",
            f"Calls that waited {SLOW_QUEUE_SECONDS} s or longer in the queue. Click an id for the "
            "trace.",
            f"{{ span.{schema.QUEUE_SECONDS} >= {SLOW_QUEUE_SECONDS} }} | "
            f"select(span.{schema.QUEUE_SECONDS}, span.{schema.BATCH_MEAN})",
            width=8,
        ),
        Row("The machine"),
        timeseries(
            "GPU memory",
            "Used by all processes, and how much there is.",
            "bytes",
            query(
                f"sum by (instance, hw_id) ({names.series(schema.GPU_MEMORY_USED)})",
                "{{instance}} {{hw_id}} used",
            ),
            query(
                f"sum by (instance, hw_id) ({names.series(schema.GPU_MEMORY_TOTAL)})",
                "{{instance}} {{hw_id}} there is",
            ),
        ),
        timeseries(
            "GPU utilisation",
            "Share of time in which the GPU computed.",
            "percent",
            query(
                f"max by (instance, hw_id) ({names.series(schema.GPU_UTILIZATION)})",
                "{{instance}} {{hw_id}}",
            ),
            limits={"min": 0, "max": 100},
        ),
        timeseries(
            "GPU temperature",
            "GPUs slow down from about 83 degrees on.",
            "celsius",
            query(
                f"max by (instance, hw_id) ({names.series(schema.GPU_TEMPERATURE)})",
                "{{instance}} {{hw_id}}",
            ),
            thresholds=[(80, "yellow"), (87, "red")],
        ),
        timeseries(
            "GPU power",
            "What the GPU draws.",
            "watt",
            query(
                f"max by (instance, hw_id) ({names.series(schema.GPU_POWER)})",
                "{{instance}} {{hw_id}}",
            ),
        ),
        timeseries(
            "Memory of PyTorch on the GPU",
            "Allocated by tensors, and reserved from the driver.",
            "bytes",
            query(
                f"sum by (instance, state) ({names.series(schema.TORCH_MEMORY)})",
                "{{instance}} {{state}}",
            ),
        ),
        timeseries(
            "CPU of inference-svc",
            "In percent of one core.",
            "percent",
            query(
                f"max by (instance) ({selector(schema.CPU_USAGE, INFERENCE)})",
                "{{instance}}",
            ),
        ),
    ],
    [Variable("model", "Model", f"{names.series(schema.MODEL_DURATION)}_count", "model")],
)
