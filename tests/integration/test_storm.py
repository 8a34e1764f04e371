"""A storm of calls and kills leaves no cent unaccounted; `make storm` is the same with 20,000."""

from pathlib import Path

import pytest

from tests.support import postgres, redis
from tests.support.storm import storm, table


@pytest.mark.slow
def test_a_storm_with_kills_leaves_no_cent_unaccounted(tmp_path: Path) -> None:
    if postgres.programs() is None or redis.PROGRAM is None:
        pytest.skip("needs Debian's postgresql and redis-server")
    with storm(tmp_path) as running:
        outcome = running.run(1200)
    assert outcome.faults == [], table(outcome)
    assert outcome.attempts > 100
    assert outcome.statuses[200] > 100
    assert len(outcome.kills) == 7
