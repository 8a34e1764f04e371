"""`python -m deploy.demo.trace TRACE_ID`: print a trace of the store as a tree in the terminal."""

import argparse
import asyncio
import sys

import httpx2

from deploy.demo import tree
from deploy.demo.addresses import tempo_url
from deploy.demo.tempo import Trace, TraceError, fetch


def trace_id(text: str) -> str:
    """A trace id in full, from an argument whose leading zeros may be missing."""
    if not 0 < len(text) <= 32 or set(text.lower()) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r} is no trace id: it has 32 hexadecimal digits")
    return text.lower().zfill(32)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="deploy.demo.trace", description=__doc__)
    parser.add_argument("trace_id", type=trace_id, help="as in an answer's X-Trace-Id")
    parser.add_argument("--tempo-url", default=tempo_url())
    asked = parser.parse_args(arguments)

    async def read() -> Trace:
        async with httpx2.AsyncClient(timeout=10) as http:
            return await fetch(http, asked.tempo_url.rstrip("/"), asked.trace_id)

    try:
        trace = asyncio.run(read())
    except TraceError as error:
        print(error, file=sys.stderr)
        return 1
    tree.show(tree.console(), trace)
    return 0


if __name__ == "__main__":
    sys.exit(main())
