"""`python -m deploy.demo.scenarios`: real calls of every kind, what they cost, and one as a trace.

Each call knows what it must answer; the exit code is 1 when one answered something else.
"""

import argparse
import asyncio
import os
import sys

import httpx2
from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

from deploy.demo import tempo, tree
from deploy.demo.addresses import add_arguments, credentials
from deploy.demo.requests import Health, Stats
from deploy.demo.runner import Runner
from deploy.demo.summary import ScenarioResult, failures, slow, slowest, table
from deploy.demo.workload import SCENARIOS, health, mixed
from gateway.contracts import PipelineAnswer

PROBE_SECONDS = 5.0
CALL_SECONDS = 120.0
SETTLE_SECONDS = 15.0
"""Seconds a trace may take to arrive: services and Collector keep spans for a second each."""

SERVICES = ("gateway", "llm-proxy", "vector-svc", "inference-svc")
"""A pipeline call goes through each of them."""


async def run(
    asked: argparse.Namespace,
    console: Console,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> int:
    """Play what is asked for, print what came of it, and return the exit code."""
    names = list(SCENARIOS) if asked.scenario == "all" else [asked.scenario]
    async with httpx2.AsyncClient(
        headers=credentials(), timeout=CALL_SECONDS, transport=transport
    ) as http:
        try:
            await http.get(f"{asked.gateway_url}/livez", timeout=PROBE_SECONDS)
        except (httpx2.HTTPError, httpx2.InvalidURL):
            console.print(f"No gateway answers at {asked.gateway_url}; `make up` starts one.")
            return 1
        runner = Runner(http, asked.gateway_url, console)
        window = describe(await runner.play("health", health()), console)
        unseen: list[str] = []
        try:
            for name in names:
                if name == "load":
                    await runner.load(mixed(), asked.load_duration * 60)
                    continue
                result = await runner.play(name, SCENARIOS[name](window))
                if name == "pipeline":
                    unseen = await show_trace(result, http, asked, console)
        finally:
            console.print()
            console.print(table(runner.results))
            console_page = f"The console, to ask and to look at it all: {asked.gateway_url}/"
            for sentence in (slowest(runner.results), slow(runner.results), console_page):
                if sentence:
                    console.print(f"\n{sentence}", soft_wrap=True)
    failed = [*failures(runner.results), *unseen]
    if failed:
        console.print("\nNot as it should be:", style="bold red")
    for sentence in failed:
        console.print(f"- {sentence}", soft_wrap=True)
    return 1 if failed else 0


def describe(result: ScenarioResult, console: Console) -> int:
    """Print what the gateway says of itself; the local model's window in tokens, if it has one."""
    window = 0
    for outcome in result.outcomes:
        match outcome.answer:
            case Health(status=status, services=services):
                console.print(f"The gateway is {status}.")
                for name, state in services.items():
                    details = (
                        f"{key.replace('_', ' ')} {value}"
                        for key, value in state.items()
                        if key != "status" and isinstance(value, str | int | float)
                    )
                    line = f"  {name:<15}  {state.get('status')}  {', '.join(details)}"
                    console.print(line, no_wrap=True, overflow="ellipsis")
            case Stats(local_model=model):
                window = int(model.get("context_window", 0))
    return window


async def show_trace(
    result: ScenarioResult, http: httpx2.AsyncClient, asked: argparse.Namespace, console: Console
) -> list[str]:
    """Print the trace of the last call; a sentence for what is missing in it.

    A system without a trace store lacks nothing.
    """
    trace_id = result.outcomes[-1].trace_id
    if trace_id is None:
        return []
    try:
        trace = await tempo.settled(http, asked.tempo_url, trace_id, SERVICES, SETTLE_SECONDS)
    except tempo.MissingTraceError as error:
        return [f"{result.name}: {error}"]
    except tempo.TraceError as error:
        console.print(f"{error} The trace of the last pipeline call is {trace_id}.")
        return []
    console.print("\nThe last pipeline call:")
    show_answer(result.outcomes[-1].answer, console)
    tree.show(console, trace)
    template = os.environ.get("TRACE_URL_TEMPLATE")
    address = (
        template.replace("{trace_id}", trace_id)
        if template
        else f"{asked.gateway_url}/console/traces?trace={trace_id}"
    )
    console.print(f"It can be opened at {address}", soft_wrap=True)
    absent = ", ".join(sorted(set(SERVICES) - set(trace.services)))
    return (
        [f"{result.name}: no spans of {absent} arrived (make trace ID={trace_id})"]
        if absent
        else []
    )


def show_answer(answer: BaseModel | None, console: Console) -> None:
    """Print the question, the document found and the models' answers, a line each."""
    if not isinstance(answer, PipelineAnswer):
        return
    results = answer.results
    lines = [("asked", answer.query)]
    if results.similarity_search and results.similarity_search.results:
        lines.append(("found", results.similarity_search.results[0].document))
    if results.openai_response:
        metadata = results.openai_response.metadata
        lines.append((f"{metadata.provider}", results.openai_response.response))
    if results.local_model_response:
        lines.append(("local model", results.local_model_response.generated_texts[0]))
    for label, text in lines:
        line = Text.assemble((f"{label:<12}  ", "bold"), " ".join(text.split()))
        console.print(line, no_wrap=True, overflow="ellipsis")
    console.print()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="deploy.demo.scenarios", description=__doc__)
    parser.add_argument("--scenario", choices=["all", *SCENARIOS, "load"], default="all")
    parser.add_argument("--load-duration", type=float, default=1.0, metavar="MINUTES")
    add_arguments(parser)
    asked = parser.parse_args(arguments)
    try:
        return asyncio.run(run(asked, tree.console()))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
