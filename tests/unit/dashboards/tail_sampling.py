"""The Collector's tail sampling processor, simulated: what it keeps of spans that come in time.

After opentelemetry-collector-contrib's processor/tailsamplingprocessor (README.md, processor.go and
internal/sampling), for the policies and settings of deploy/otel-collector/config.yaml. Others raise
NotImplementedError.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
DEFAULTS = {
    "sampling_strategy": "trace-complete",
    "decision_wait": "30s",
    "decision_wait_after_root_received": "0s",
    "num_traces": 50000,
}


@dataclass(frozen=True)
class Span:
    """A span; times are in seconds."""

    name: str
    start: float
    end: float
    failed: bool = False
    attributes: Mapping[str, float] = field(default_factory=dict)
    tracestate: str = ""
    is_root: bool = False


@dataclass(frozen=True)
class Batch:
    """The spans of a trace that one service sends together, and when they arrive."""

    trace_id: int
    arrival: float
    spans: Sequence[Span]


def seconds(duration: str) -> float:
    """A duration as Go reads it: numbers with units, which add up."""
    parts = re.findall(r"([\d.]+)(ms|[smh])", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"{duration!r} is no duration")
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


def in_environment(value: Any, environment: Mapping[str, str]) -> Any:
    """What the Collector reads: `${env:NAME:-default}` is the variable, or the default."""
    if isinstance(value, dict):
        return {key: in_environment(each, environment) for key, each in value.items()}
    if isinstance(value, list):
        return [in_environment(each, environment) for each in value]
    if isinstance(value, str):
        return re.sub(
            r"\$\{env:(\w+):-(.*?)\}", lambda found: environment.get(found[1], found[2]), value
        )
    return value


def wants(policy: Mapping[str, Any], trace_id: int, spans: Sequence[Span]) -> bool:
    """Whether a policy wants a trace of which it sees these spans."""
    settings = policy[policy["type"]]
    match policy["type"]:
        case "status_code":
            assert settings["status_codes"] == ["ERROR"]
            return any(span.failed for span in spans)
        case "latency":
            first = accumulate((span.start for span in spans), min)
            last = accumulate((span.end for span in spans), max)
            longest = max(end - start for start, end in zip(first, last, strict=True))
            return longest * 1000 >= float(settings["threshold_ms"])
        case "ottl_condition":
            return any(_holds(each, span) for each in settings["span"] for span in spans)
        case "trace_state":
            pairs = (pair.partition("=") for span in spans for pair in span.tracestate.split(","))
            return any(
                key.strip() == settings["key"] and value.strip() in settings["values"]
                for key, _, value in pairs
            )
        case "probabilistic":
            most = int(float(settings["sampling_percentage"]) / 100 * (2**64 - 1))
            return _fnv_1a(b"default-hash-seed" + trace_id.to_bytes(16)) <= most
    raise NotImplementedError(policy["type"])


def _holds(condition: str, span: Span) -> bool:
    found = re.fullmatch(r'span\.attributes\["([\w.]+)"\] >= ([\d.]+)', condition)
    if found is None:
        raise NotImplementedError(condition)
    value = span.attributes.get(found[1])
    return value is not None and value >= float(found[2])


def _fnv_1a(content: bytes) -> int:
    result = 0xCBF29CE484222325
    for byte in content:
        result = (result ^ byte) * 0x100000001B3 % 2**64
    return result


class TailSampling:
    """Takes batches in the order of their arrival; `kept` has the spans that went on, by trace."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        if unknown := settings.keys() - DEFAULTS - {"policies", "decision_cache"}:
            raise NotImplementedError(unknown)
        settings = {**DEFAULTS, **settings}
        self._policies = settings["policies"]
        self._on_ingest = settings["sampling_strategy"] == "span-ingest"
        self._wait = seconds(settings["decision_wait"])
        self._after_root = seconds(settings["decision_wait_after_root_received"])
        self._most = settings["num_traces"]
        self._waiting: dict[int, list[Span]] = {}
        self._due: dict[int, float] = {}
        self._decided: dict[int, bool] = {}
        """As in the decision caches, which hold more traces than any test has."""
        self.kept: dict[int, list[str]] = defaultdict(list)
        self.sent_at: dict[int, float] = {}
        """When the first span of a trace went on."""

    def run(self, batches: Sequence[Batch]) -> None:
        """Take them all, and wait until everything has been decided."""
        for batch in sorted(batches, key=lambda each: each.arrival):
            self._pass(until=batch.arrival)
            self._take(batch)
        self._pass(until=float("inf"))

    def _take(self, batch: Batch) -> None:
        trace_id = batch.trace_id
        if trace_id in self._decided:
            if self._decided[trace_id]:
                self._send(trace_id, batch.spans, batch.arrival)
            return
        if trace_id not in self._waiting:
            if len(self._waiting) >= self._most:
                oldest = next(iter(self._waiting))
                del self._waiting[oldest], self._due[oldest]
            self._waiting[trace_id] = []
            self._due[trace_id] = batch.arrival + self._wait
        if self._after_root and any(span.is_root for span in batch.spans):
            self._due[trace_id] = min(self._due[trace_id], batch.arrival + self._after_root)
        self._waiting[trace_id] += batch.spans
        if self._on_ingest and self._wanted(trace_id, batch.spans):
            self._decide(trace_id, True, batch.arrival)

    def _pass(self, until: float) -> None:
        """Decide what is due; of what is judged when it comes only the unwanted is left."""
        for trace_id, due in sorted(self._due.items(), key=lambda item: item[1]):
            if due <= until:
                spans = self._waiting[trace_id]
                self._decide(trace_id, not self._on_ingest and self._wanted(trace_id, spans), due)

    def _wanted(self, trace_id: int, spans: Sequence[Span]) -> bool:
        return any(wants(policy, trace_id, spans) for policy in self._policies)

    def _decide(self, trace_id: int, keep: bool, at: float) -> None:
        self._decided[trace_id] = keep
        spans = self._waiting.pop(trace_id)
        del self._due[trace_id]
        if keep:
            self._send(trace_id, spans, at)

    def _send(self, trace_id: int, spans: Sequence[Span], at: float) -> None:
        self.kept[trace_id] += [span.name for span in spans]
        self.sent_at.setdefault(trace_id, at)
