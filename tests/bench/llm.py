"""`python -m tests.bench.llm`: llm-proxy and gateway beside LiteLLM, written to RESULTS.md."""

import sys

from tests.bench.load import run
from tests.bench.measure import CASES
from tests.bench.report import section
from tests.bench.subjects import SUBJECTS


def main(given: list[str] | None = None) -> int:
    return run("llm", __doc__, SUBJECTS, CASES, section, given)


if __name__ == "__main__":
    sys.exit(main())
