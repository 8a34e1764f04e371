"""`python -m deploy.local up|down|status|logs`: run the embedded stack from a terminal."""

import argparse
import os
import sys
import time
from typing import NoReturn

from deploy.local.parts import BadPort, make_internal_token, parts, state_folder
from deploy.local.stack import Stack, StackError


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy.local", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status", "logs"))
    command = parser.parse_args().command
    try:
        if command == "up":
            make_internal_token(state_folder())
        stack = Stack(parts(), state_folder())
        if command == "logs":
            logs(stack)
        return {"up": up, "down": down, "status": status}[command](stack)
    except (StackError, BadPort) as error:
        print(error, file=sys.stderr)
        return 1


def up(stack: Stack) -> int:
    """Start the parts that aren't running and wait until all of them answer."""
    missing = [part for part in stack.parts if stack.process(part) is None]
    if not missing:
        print(f"already running: {address(stack)}")
        return 0
    if len(missing) < len(stack.parts):
        print(f"not running, so started again: {', '.join(part.name for part in missing)}")
    stack.require_free_ports()
    started = time.monotonic()
    try:
        for part in missing:
            stack.start(part)
        print(f"starting {', '.join(part.name for part in missing)}")
        for part in stack.until_ready(missing):
            print(f"  {part.name:<14}ready after {time.monotonic() - started:5.1f} s", flush=True)
    except (StackError, KeyboardInterrupt) as error:
        stack.stop()
        reason = str(error) or "interrupted"
        raise StackError(f"{reason}\n  everything that was started has been stopped") from error
    print(f"up: {address(stack)}   (make status, make logs, make down)")
    return 0


def down(stack: Stack) -> int:
    running = [part.name for part in stack.parts if stack.process(part)]
    killed = stack.stop()
    print(f"stopped: {', '.join(running)}" if running else "nothing was running")
    if killed:
        print(f"did not stop in time and were killed: {', '.join(killed)}")
    return 0


def status(stack: Stack) -> int:
    """Print one line for each part; exit code 1 unless all are running."""
    states = [stack.state(part) for part in stack.parts]
    for state in states:
        ports = ", ".join(str(number) for number in state.part.ports.values())
        where = f"process {state.pid}, port {ports}" if state.pid else ""
        if state.word == "died":
            where = f"its log: {stack.log(state.part)}"
        print(f"  {state.part.name:<14}{state.word:<10}{where}")
    return 0 if all(state.word == "running" for state in states) else 1


def logs(stack: Stack) -> NoReturn:
    """Follow the logs of all parts until Ctrl-C."""
    files = [str(stack.log(part)) for part in stack.parts if stack.log(part).exists()]
    if not files:
        raise StackError("there are no logs yet: make up")
    os.execvp("tail", ["tail", "-n", "20", "-F", *files])


def address(stack: Stack) -> str:
    (port,) = stack.parts[-1].ports.values()
    return f"gateway and console http://localhost:{port}/"


if __name__ == "__main__":
    sys.exit(main())
