"""`python -m deploy.local.trace_store --data DIR`: OTLP in, Tempo's API out, in one process."""

import argparse
import asyncio
import signal
import socket
import sqlite3
import sys
from contextlib import closing, nullcontext
from pathlib import Path

import uvicorn

from . import otlp, tempo
from .store import Store


class Server(uvicorn.Server):
    """A server that leaves signals to the process, because two servers share them."""

    capture_signals = nullcontext  # type: ignore[assignment]


async def serve(store: Store, listeners: list[socket.socket]) -> None:
    """Serve both APIs until SIGTERM or SIGINT; requests then under way have a second to end."""
    apps = (otlp.create_app(store), tempo.create_app(store))
    configs = (uvicorn.Config(a, log_level="warning", timeout_graceful_shutdown=1) for a in apps)
    servers = [Server(config) for config in configs]

    def stop() -> None:
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    with closing(store):
        await asyncio.gather(*(s.serve([at]) for s, at in zip(servers, listeners, strict=True)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="trace_store", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder for the traces")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--otlp-port", type=int, default=4318, help="0 for any that is free")
    parser.add_argument("--tempo-port", type=int, default=3200, help="0 for any that is free")
    parser.add_argument("--max-megabytes", type=int, default=256, help="on disk, at least 128")
    asked = parser.parse_args()
    try:
        store = Store(asked.data, max(128, asked.max_megabytes) * 2**20)
        ports = (asked.otlp_port, asked.tempo_port)
        listeners = [socket.create_server((asked.host, port)) for port in ports]
    except (OSError, OverflowError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"The trace store can't start, data in {asked.data}: {reason}", file=sys.stderr)
        return 1
    at = [f"http://{asked.host}:{listener.getsockname()[1]}" for listener in listeners]
    print(f"The trace store takes OTLP on {at[0]}, has Tempo's API on {at[1]}", flush=True)
    asyncio.run(serve(store, listeners))
    return 0


if __name__ == "__main__":
    sys.exit(main())
