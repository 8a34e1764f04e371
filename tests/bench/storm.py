"""`python -m tests.bench.storm`: calls of every sort while every part of the stack is killed."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support.storm import storm, table


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.storm", description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    arguments = parser.parse_args(given)
    with (
        tempfile.TemporaryDirectory(prefix="o11y-storm-") as folder,
        storm(Path(folder)) as running,
    ):
        outcome = running.run(arguments.calls)
    print(table(outcome))
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
