"""The objectives of the pipeline and of each hop: the share of requests that end well, in time.

Windows and burn rates follow chapter 5 of the Site Reliability Workbook, for a period of 30 days.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from deploy.dashboards import others, promql
from o11y.telemetry import schema

SERVER = schema.HTTP_SERVER_DURATION
FAILED = {schema.HTTP_STATUS: '=~"5.."', schema.ERROR_TYPE: f'!="{schema.ERROR_CALLER_DEADLINE}"'}
PERIOD = "30d"
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True)
class Slo:
    """An objective: which share of the events ends well, and the share that did not in a time."""

    name: str
    objective: float
    errors: Callable[[str], str]


def availability(where: promql.Where) -> Callable[[str], str]:
    """Requests answered with 5xx, of all. One whose caller left, or gave it hardly any time, is no
    failure.
    """
    return lambda over: promql.share(SERVER, FAILED, where=where, over=over)


def latency(where: promql.Where, seconds: float) -> Callable[[str], str]:
    """Requests that took longer, of all; `seconds` is one of the histogram's bounds."""
    if seconds not in SERVER.buckets:
        raise ValueError(f"{SERVER.name} has no bucket of {seconds} s")
    bound = f"{seconds:g}".replace(".", r"\\.") + (r"(\\.0)?" if seconds == int(seconds) else "")

    def errors(over: str) -> str:
        in_time = promql.selector(SERVER, {**where, "le": f'=~"{bound}"'}, "_bucket")
        every = promql.rate(SERVER, where=where, over=over)
        return f"1 - sum(rate({in_time}[{over}])) / ({every} > 0)"

    return errors


PIPELINE = {"service_name": '="gateway"', schema.HTTP_ROUTE: '="/full-pipeline"'}


def _hop(service: str, available: float, seconds: float, in_time: float) -> Iterator[Slo]:
    where = PIPELINE if service == "pipeline" else {"service_name": f'="{service}"'}
    yield Slo(f"{service}-availability", available, availability(where))
    yield Slo(f"{service}-latency", in_time, latency(where, seconds))


SLOS = [
    *_hop("pipeline", 0.995, 10, 0.95),
    *_hop("llm-proxy", 0.995, 10, 0.95),
    *_hop("vector-svc", 0.999, 0.5, 0.99),
    *_hop("inference-svc", 0.995, 10, 0.95),
]


def recorded() -> Iterator[dict[str, Any]]:
    """The groups of recording rules."""
    yield {
        "name": "slo",
        "interval": "30s",
        "rules": [
            *(_rule(others.OBJECTIVE, slo, f"vector({slo.objective})") for slo in SLOS),
            *(
                _rule(f"{others.ERRORS}{over}", slo, slo.errors(over))
                for over in WINDOWS
                for slo in SLOS
            ),
        ],
    }
    yield {
        "name": "slo-budget",
        "interval": "5m",
        "rules": [
            _rule(others.BUDGET, slo, f"1 - ({slo.errors(PERIOD)}) / (1 - {slo.objective})")
            for slo in SLOS
        ],
    }


def _rule(name: str, slo: Slo, expression: str) -> dict[str, Any]:
    return {"record": name, "expr": expression, "labels": {"slo": slo.name}}


def burning(factor: float, long: str, short: str) -> str:
    """The objectives whose budget burns this many times too fast, over a long time and still."""
    bound = f"{factor} * (1 - {others.OBJECTIVE})"
    return (
        f"({others.ERRORS}{long} > on (slo) {bound}) "
        f"and on (slo) ({others.ERRORS}{short} > on (slo) {bound})"
    )
