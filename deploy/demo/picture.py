"""`python -m deploy.demo.picture`: the trace of a pipeline call as the picture that README shows.

It plays the demo's pipeline scenario against a running stack (`make pictures` starts one) and
writes docs/pictures/trace.svg: the lines that the demo prints, by rich's SVG export.
"""

import argparse
import asyncio
import io
import sys
from pathlib import Path

import httpx2
from rich.console import Console

from deploy.demo import tempo, tree
from deploy.demo.addresses import add_arguments, credentials
from deploy.demo.runner import Runner
from deploy.demo.scenarios import CALL_SECONDS, SERVICES, SETTLE_SECONDS
from deploy.demo.workload import SCENARIOS

PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "trace.svg"
COLUMNS = 120

# rich's own names a font of another host
FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<!-- Written by `make pictures`. -->
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px;
  line-height: {line_height}px;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def drawn(trace: tempo.Trace) -> str:
    """The tree of a trace as SVG."""
    console = Console(
        width=COLUMNS,
        record=True,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
    )
    tree.show(console, trace)
    return console.export_svg(title="make trace", code_format=FORMAT, unique_id="trace")


async def draw(gateway: str, store: str) -> None:
    """Write the picture of a pipeline call with every stage. Raises TraceError, HTTPError."""
    async with httpx2.AsyncClient(headers=credentials(), timeout=CALL_SECONDS) as http:
        runner = Runner(http, gateway, tree.console())
        result = await runner.play("pipeline", SCENARIOS["pipeline"](0))
        trace_id = result.outcomes[-1].trace_id
        if trace_id is None:
            raise tempo.TraceError(f"{gateway} names no trace in its answer.")
        trace = await tempo.settled(http, store, trace_id, SERVICES, SETTLE_SECONDS)
    PICTURE.write_text(drawn(trace))
    print(f"wrote {PICTURE}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="deploy.demo.picture", description=__doc__)
    add_arguments(parser)
    asked = parser.parse_args(arguments)
    try:
        asyncio.run(draw(asked.gateway_url, asked.tempo_url))
    except tempo.TraceError as error:
        print(error, file=sys.stderr)
        return 1
    except httpx2.HTTPError as error:
        print(f"The gateway or the trace store does not answer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
